"""What each role of dedicated deployments has and wants; the plan that is open, applied or dismissed."""

from __future__ import annotations

import time

import click

from controlplane.cli.client import Row
from controlplane.cli.commands.scaling_policy import policy
from controlplane.cli.explaining import assigned, explained
from controlplane.cli.failures import Exit, failure
from controlplane.cli.following import follow
from controlplane.cli.options import json_option, reason_option, wait_options, yes_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, moment, plain, table

number_argument = click.argument("plan", type=click.IntRange(min=1), required=False)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def scaling(ctx: click.Context) -> None:
    """Engines that each role has and wants, why, and the plan to get there."""
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.ensure_object(Session)
    found = session.client.get("scaling")
    session.answer(found, lambda: _told(found))


scaling.add_command(policy)


@scaling.command()
@click.option("--state", type=click.Choice(["open", "applied", "dismissed", "superseded"]), help="Only of this state.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@json_option
@pass_session
def plans(session: Session, *, state: str | None, limit: int) -> None:
    """Plans, newest first, and what became of them."""
    rows = session.client.every("scaling/plans", limit, **({"state": state} if state else {}))
    session.answer(rows, lambda: _plans(rows))


@scaling.command()
@number_argument
@reason_option
@yes_option
@wait_options
@json_option
@pass_session
def apply(session: Session, *, plan: int | None, reason: str, yes: bool, wait: bool, timeout_s: float) -> None:
    """Apply PLAN, by default the one that is open, after showing what it does."""
    row = _chosen(session, plan)
    session.say(_plan(row))
    session.confirm(f"Plan {row['id']} is applied.", yes=yes)
    since = time.monotonic()
    row = session.client.post(f"scaling/plans/{row['id']}/apply", {"reason": reason})
    change, seconds = None, None
    if row["change"] is not None:
        change = session.client.get(f"changes/{row['change']}")
        if wait:
            change, seconds = follow(session, change, timeout_s=timeout_s, since=since)
    told = {"plan": row, "change": change, "waited": wait and change is not None, "seconds": seconds}
    session.answer(told, lambda: _applied(row, seconds))


@scaling.command()
@number_argument
@reason_option
@json_option
@pass_session
def dismiss(session: Session, *, plan: int | None, reason: str) -> None:
    """PLAN, by default the one that is open, is not to be done. The same is not proposed for an hour."""
    number = _chosen(session, plan)["id"]
    row = session.client.post(f"scaling/plans/{number}/dismiss", {"reason": reason})
    session.answer(row, lambda: f"Plan {number} is dismissed: the same is not proposed for an hour.")


def _chosen(session: Session, number: int | None) -> Row:
    if number is not None:
        return session.client.get(f"scaling/plans/{number}")
    found: Row | None = session.client.get("scaling")["plan"]
    if found is None:
        raise failure(Exit.REFUSED, "No plan is open.", "See what each role has and wants: forebay scaling")
    return found


def _told(found: Row) -> str:
    parts = []
    if found["late"]:
        parts.append(f"The last look was at {moment(found['looked_at'])} UTC: the control worker does not look.")
    if found["lanes"]:
        headers = ["DEPLOYMENT", "ROLE", "HAS", "READY", "LOST", "WANTS", "SHORT", "FLOOR", "RATE", "TO COME", "WHY"]
        parts.append(table(headers, [_lane(lane) for lane in found["lanes"]], right=(2, 3, 4, 5, 6, 7, 8, 9)))
        others = {lane["deployment"]["name"]: lane["other"] for lane in found["lanes"] if lane["other"]}
        parts += [plain("\n".join(f"{name}: {other}." for name, other in others.items()))] if others else []
    elif not found["late"]:
        parts.append("No dedicated deployment has or wants an engine.")
    parts.append(_plan(found["plan"]) if found["plan"] else "No plan is open.")
    return "\n\n".join(parts)


def _lane(lane: Row) -> list[str]:
    numbers = [lane[name] for name in ("count", "ready", "lost", "wanted", "short", "floor")]
    rates = [lane["rate_now"], lane["rate_coming"]]
    return [
        lane["deployment"]["name"],
        lane["role"],
        *(UNKNOWN if number is None else str(number) for number in numbers),
        *(UNKNOWN if rate is None else f"{rate:.3g}/s" for rate in rates),
        f"{lane['kind']}: {lane['why']}",
    ]


def _plan(row: Row) -> str:
    lines = [f"Plan {row['id']}, {row['state']}, made at {moment(row['made_at'])} UTC:"]
    lines += [f"  {move['partition']['name']}{_between(move)}: {move['why']}" for move in row["moves"]]
    lines += [f"  {one['name']} {'to' if one['pool'] else 'out of'} the pool: {one['why']}" for one in row["pool"]]
    if row["preview"]:
        lines.append(explained(row["preview"]))
    lines += [f"It waits for a person: {why}" for why in row["held_back"] if row["state"] == "open"]
    return plain("\n".join(lines))


def _between(move: Row) -> str:
    if move["before"] is None or move["after"] is None:
        return ""
    return f", {assigned(move['before'])} -> {assigned(move['after'])}"


def _plans(rows: list[Row]) -> str:
    if not rows:
        return "No such plans."
    headers = ("PLAN", "MADE AT (UTC)", "STATE", "BY", "CHANGE", "MOVES", "WHY")
    return table(headers, [_row(row) for row in rows], right=(0, 4, 5))


def _row(row: Row) -> list[str]:
    whys = dict.fromkeys(one["why"] for one in [*row["moves"], *row["pool"]])
    who = f"{row['decided_by']}, automatically" if row["automatic"] else row["decided_by"] or UNKNOWN
    change = UNKNOWN if row["change"] is None else str(row["change"])
    moves = str(len(row["moves"]) + len(row["pool"]))
    return [str(row["id"]), moment(row["made_at"]), row["state"], who, change, moves, "; ".join(whys)]


def _applied(row: Row, seconds: float | None) -> str:
    if row["change"] is None:
        return f"Plan {row['id']} is applied."
    if seconds is None:
        return f"Plan {row['id']} is applied. Follow it with: forebay changes {row['change']} --watch"
    return (
        f"Plan {row['id']} is applied, done after {seconds:.1f} s. Take it back with: forebay undo {row['change']}"
    )  # fmt: skip
