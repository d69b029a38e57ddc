"""What serving costs and whose it is; what nodes cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.commands.teams import NONE, Money
from controlplane.cli.options import Length, Moment, json_option, reason_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, figure, moment, share, table

BY = ("team", "model", "key", "node", "share")
UNNAMED = {"team": "nobody's", "model": "no deployment", "key": "without a key"}


@click.command()
@click.option("--by", type=click.Choice(BY), default="team", show_default=True, help="What sums are made by.")
@click.option("--for", "seconds", type=Length(), default="7d", show_default=True, help="How far back, as 24h or 30d.")
@click.option("--since", type=Moment(), help="From then on, instead of --for.")
@click.option("--until", type=Moment(), help="Until then, instead of now.")
@json_option
@pass_session
def cost(session: Session, *, by: str, seconds: int, since: str | None, until: str | None) -> None:
    """GPU time, tokens and money by team, model, key, node or share of time."""
    end = until or datetime.now(UTC).isoformat()
    begin = since or (datetime.fromisoformat(end) - timedelta(seconds=seconds)).isoformat()
    found = session.client.get("usage", by=by, since=begin, until=end)
    session.answer(found, lambda: _told(found))


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=names.complete_node)
@click.argument("amount", type=Money())
@click.option("--since", type=Moment(), help="From that hour on, as 12h or a time. Default: this hour.")
@reason_option
@json_option
@pass_session
def price(session: Session, nodes: tuple[str, ...], amount: Decimal | str, *, since: str | None, reason: str) -> None:
    """Each GPU of NODEs costs AMOUNT an hour; none: it is not known. Admins only."""
    wanted = {
        "nodes": list(nodes), "per_gpu_hour": None if amount == NONE else float(amount), "since": since,
        "reason": reason,
    }  # fmt: skip
    rows = session.client.post("prices", wanted)
    session.answer(rows, lambda: f"{len(nodes)} {'node has' if len(nodes) == 1 else 'nodes have'} that price.")


def _told(found: Row) -> str:
    if found["recorded_since"] is None:
        return "Nothing is counted yet: it is, within two minutes, once nodes report."
    if not found["groups"]:
        return f"No usage in that time. The first hour on record is {moment(found['recorded_since'])} UTC."
    headers = (
        found["by"].upper(), found["currency"], "GPU-HOURS", "ACTIVE", "RESERVED", "IDLE", "REQUESTS", "TOKENS IN",
        "TOKENS OUT", "PER M IN", "PER M OUT", "PER M ALL",
    )  # fmt: skip
    unnamed = UNNAMED.get(found["by"], UNKNOWN)
    rows = [_cells(group["name"] or unnamed, group) for group in found["groups"]]
    lines = [table(headers, [*rows, _cells("total", found["total"])], right=range(1, len(headers)))]
    if unpriced := found["total"]["unpriced_gpu_s"]:
        lines.append(
            f"Without {figure(unpriced / 3600)} GPU-hours on nodes that have no price: forebay price NODE AMOUNT"
        )
    lines.append(f"Counted at {moment(found['counted_at'])} UTC; final until {moment(found['final_until'])} UTC.")
    return "\n".join(lines)


def _cells(name: str, group: Row) -> list[str]:
    time, per = group["gpu_s"], group["per_million"]
    whole = sum(time.values())
    return [
        name,
        _money(group["cost"]),
        f"{whole / 3600:,.2f}",
        *(share(time[part] / whole if whole else None) for part in ("active", "reserved", "idle")),
        f"{group['requests']:,}",
        f"{group['prompt_tokens']:,}",
        f"{group['completion_tokens']:,}",
        *(_money(per[part]) for part in ("input", "output", "all")),
    ]


def _money(amount: float | None) -> str:
    if amount is None:
        return UNKNOWN
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"
