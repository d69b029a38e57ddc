"""Who changed what, when and why."""

from __future__ import annotations

import json

import click

from controlplane.cli.client import Row
from controlplane.cli.options import Moment, json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, moment, plain, table


@click.command()
@click.option("--since", type=Moment(), help="From then on: 2h, 7d, or 2026-01-31T12:00:00Z.")
@click.option("--until", type=Moment(), help="Before then.")
@click.option("--actor", help="Who, as ada or 'agent node-1'.")
@click.option("--source", type=click.Choice(["web", "rest", "agent", "system"]))
@click.option("--verb", help="What was done, as assign, release, drain, engine-exited.")
@click.option("--subject", help="To what, as node-1/p0, node-1 or a deployment's name.")
@click.option("--type", "subject_type", help="To what kind, as partition, node, deployment.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, help="The newest so many."
)
@click.option("--details", is_flag=True, help="Also what was noted, such as the last log lines of a dead engine.")
@json_option
@pass_session
def audit(
    session: Session,
    *,
    since: str | None,
    until: str | None,
    actor: str | None,
    source: str | None,
    verb: str | None,
    subject: str | None,
    subject_type: str | None,
    limit: int,
    details: bool,
) -> None:
    """The audit trail, newest first."""
    asked = {
        "since": since,
        "until": until,
        "actor": actor,
        "source": source,
        "verb": verb,
        "subject_name": subject,
        "subject_type": subject_type,
    }
    rows = session.client.every("events", limit, **{key: value for key, value in asked.items() if value})
    session.answer(rows, lambda: _detailed(rows) if details else _table(rows))


def _table(rows: list[Row]) -> str:
    if not rows:
        return "No such events."
    headers = ("AT (UTC)", "WHO", "DID", "TO", "CHANGE", "REASON")
    cells = [
        (moment(row["at"]), row["actor"], row["verb"], row["subject_name"], _change(row), row["reason"] or UNKNOWN)
        for row in rows
    ]
    return table(headers, cells)


def _detailed(rows: list[Row]) -> str:
    blocks = []
    for row in rows:
        lines = [f"{moment(row['at'])} UTC  {row['actor']} ({row['source']}): {row['verb']} {row['subject_name']}"]
        lines += [f"change: {_change(row)}", f"reason: {row['reason'] or UNKNOWN}", *row["detail"].splitlines()]
        blocks.append("\n    ".join(lines))
    return plain("\n".join(blocks)) or "No such events."


def _change(row: Row) -> str:
    """The values that differ, as role=decode; what they were is in --json."""
    before, after = row["before"] or {}, row["after"] or {}
    changed = [f"{key}={_value(after.get(key))}" for key in after if before.get(key) != after[key]]
    return " ".join(changed) or UNKNOWN


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
