"""The scaling policy from a terminal: looking, changing."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import Length, Share, json_option, reason_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import table

PATH = "scaling/policy"


@click.command()
@click.option("--auto/--no-auto", "auto_apply", default=None, help="Apply by itself what nothing holds back.")
@click.option("--auto-switch/--no-auto-switch", default=None, help="Also between aggregated and disaggregated engines.")
@click.option("--level", type=Share(), help="How sure the floor by the forecast is of the rate, as 95%.")
@click.option("--lengths", "lengths_level", type=Share(), help="And of the next hour's mean lengths, 50% to 99%.")
@click.option("--quiet", "quiet_s", type=Length(), help="One engine fewer must do for so long before it goes, as 10m.")
@click.option("--moves", "moves_per_hour", type=click.IntRange(min=1), help="By itself in an hour, at most.")
@click.option("--quiet-hours", multiple=True, help="As 'Mon-Fri 8:00-18:00'. All of them, not one more.")
@click.option("--no-quiet-hours", is_flag=True, help="None.")
@click.option("--time-zone", help="In which quiet hours are meant, as Europe/Berlin.")
@click.option("--most-gpus", type=click.IntRange(min=0), help="Of dedicated engines, by itself; 0: any number.")
@click.option("--price", "price_per_hour", type=float, help="What they cost in an hour, by itself; 0: anything.")
@reason_option
@json_option
@pass_session
def policy(session: Session, /, *, reason: str, **options: Any) -> None:
    """How plans are made and when one is applied by itself. With options it is changed; what is not named stays."""
    before, values = session.client.get(PATH), _values(**options)
    if not values:
        session.answer(before, lambda: _told([("", before)]))
        return
    after = session.client.patch(PATH, {**values, "reason": reason, "expected_version": before["version"]})
    session.answer(after, lambda: _told([("BEFORE", before), ("NOW", after)]))


def _values(*, quiet_hours: tuple[str, ...], no_quiet_hours: bool, **options: Any) -> Row:
    if quiet_hours and no_quiet_hours:
        raise failure(Exit.USAGE, "These exclude each other.", "Give --quiet-hours or --no-quiet-hours.")
    found: Row = {name: value for name, value in options.items() if value is not None}
    found |= {name: None for name in ("most_gpus", "price_per_hour") if found.get(name) == 0}
    if quiet_hours or no_quiet_hours:
        found["quiet_hours"] = list(quiet_hours)
    return found


def _told(columns: list[tuple[str, Row]]) -> str:
    rows = [[name, *(of(row) for _, row in columns)] for name, of in LINES]
    return table(["", *(title for title, _ in columns)], rows)


LINES = (
    ("applied", lambda row: "by itself, within these" if row["auto_apply"] else "by people"),
    ("kinds of engines switched", lambda row: "by itself, too" if row["auto_switch"] else "by people"),
    ("moves in an hour", lambda row: str(row["moves_per_hour"])),
    ("quiet hours", lambda row: "; ".join(row["quiet_hours"]) or "none"),
    ("time zone", lambda row: row["time_zone"]),
    ("GPUs at most", lambda row: str(row["most_gpus"] or "any number")),
    ("an hour's price", lambda row: "anything" if row["price_per_hour"] is None else f"{row['price_per_hour']:g}"),
    ("sure of the rate", lambda row: f"{100 * row['level']:g}%"),
    ("sure of the lengths", lambda row: f"{100 * row['lengths_level']:g}%"),
    ("fewer must do for", lambda row: f"{row['quiet_s']} s"),
)
