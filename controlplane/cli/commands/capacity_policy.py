"""The capacity policy from a terminal: looking, trying out, changing."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import Length, Share, json_option, reason_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, figure, table

PATH = "capacity/policy"


@click.command()
@click.option("--keep-alive", "keep_alive_s", type=Length(), help="A model is active so long after its last request.")
@click.option("--risk", type=Share(), help="At most this share of activations waits, as 1%.")
@click.option("--prices", type=float, nargs=2, metavar="GPU_HOUR COLD_WAIT", help="Hold what costs least by these.")
@click.option(
    "--floor",
    "floors",
    multiple=True,
    help="As 'Mon 9:00-12:00 12' or '2026-12-24 9:00-12:00 12'. All of them, not one more.",
)
@click.option("--no-floors", is_flag=True, help="No floor at any hour.")
@click.option("--time-zone", help="In which floors are meant, as Europe/Berlin.")
@click.option("--dry-run", is_flag=True, help="Say what it would come to; change nothing.")
@reason_option
@json_option
@pass_session
def policy(session: Session, /, *, dry_run: bool, reason: str, **options: Any) -> None:
    """What is held ready and why. With options it is changed; what is not named stays."""
    before, values = session.client.get(PATH), _values(**options)
    if not values:
        session.answer(before, lambda: _told([("", before)]))
        return
    if dry_run:
        after = session.client.patch(PATH, values, dry_run="true")
        session.answer(after, lambda: _told([("NOW", before), ("WOULD BE", after)]) + "\nNothing was changed.")
        return
    body = {**values, "reason": reason, "expected_version": before["version"]}
    after = session.client.patch(PATH, body)
    session.answer(after, lambda: _told([("BEFORE", before), ("NOW", after)]))


def _values(
    *,
    keep_alive_s: int | None,
    risk: float | None,
    prices: tuple[float, float] | None,
    floors: tuple[str, ...],
    no_floors: bool,
    time_zone: str | None,
) -> Row:
    if (risk is not None and prices) or (floors and no_floors):
        raise failure(Exit.USAGE, "These exclude each other.", "Give --risk or --prices, and --floor or --no-floors.")
    found: Row = {"keep_alive_s": keep_alive_s, "time_zone": time_zone}
    if risk is not None:
        found |= {"aim": "risk", "most_cold": risk}
    if prices:
        found |= {"aim": "prices", "gpu_hour_price": prices[0], "cold_price": prices[1]}
    if floors or no_floors:
        found["floors"] = list(floors)
    return {name: value for name, value in found.items() if value is not None}


def _told(columns: list[tuple[str, Row]]) -> str:
    rows = [[name, *(of(row) for _, row in columns)] for name, of in LINES]
    return table(["", *(title for title, _ in columns)], rows)


def _aim(row: Row) -> str:
    if row["aim"] == "risk":
        return f"at most {row['most_cold']:.4g} of activations wait"
    return f"least cost: {row['gpu_hour_price']:g} a GPU-hour, {row['cold_price']:g} a wait"


def _usual(weighed: Row) -> str:
    slots, gpus = figure(weighed["slots"], "slots"), weighed["gpus"]
    return slots if gpus == weighed["slots"] else f"{slots}, {figure(gpus, 'GPUs')}"


def _held(row: Row) -> str:
    return f"{row['held']['slots']}: {row['held']['reason']}" if row["held"] else UNKNOWN


LINES = (
    ("keep-alive", lambda row: f"{row['keep_alive_s']} s"),
    ("aim", _aim),
    ("floors", lambda row: "; ".join(row["floors"]) or "none"),
    ("time zone", lambda row: row["time_zone"]),
    ("a usual week", lambda row: _usual(row["weighed"])),
    ("waits in an hour", lambda row: figure(row["weighed"]["waits_per_hour"])),
    ("cost of 30 days", lambda row: figure(row["weighed"]["cost"])),
    ("to hold now", _held),
)
