"""What is wrong by the rules: listing it, taking it on, muting what is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import Length, json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, moment, table

SEVERITIES = ("info", "warning", "critical")


@click.group(invoke_without_command=True)
@click.option("--all", "all_of_them", is_flag=True, help="Also those that are pending or have ended.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Of this severity alone.")
@click.option("--rule", help="Of this rule alone, as node-silent.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@json_option
@pass_session
@click.pass_context
def alerts(
    ctx: click.Context, session: Session, *, all_of_them: bool, severity: str | None, rule: str | None, limit: int
) -> None:
    """Alerts that fire now, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    asked = {"state": None if all_of_them else "firing", "severity": severity, "rule": rule}
    rows = session.client.every("alerts", limit, **{key: value for key, value in asked.items() if value})
    session.answer(rows, lambda: _table(rows))


@alerts.command()
@click.argument("alert", type=click.IntRange(min=1))
@click.option("-m", "--note", default="", help="What is being done about it.")
@json_option
@pass_session
def ack(session: Session, alert: int, note: str) -> None:
    """Take ALERT on: others see who looks after it."""
    row = session.client.post(f"alerts/{alert}/acknowledge", {"note": note})
    session.answer(row, lambda: f"{row['title']}, {row['subject']['name']}: acknowledged.")


@alerts.command()
@click.option("--rule", default="", help="A rule's key, as gpu-hot.")
@click.option("--subject", default="", help="What it is about, as node-1/gpu0; * stands for anything.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label; node and deployment are some.")
@click.option("--for", "seconds", type=Length(), required=True, help="For how long, as 30m, 2h or 7d.")
@click.option("-m", "--reason", required=True, help="Why; kept in the audit trail.")
@json_option
@pass_session
def silence(session: Session, *, rule: str, subject: str, labels: tuple[str, ...], seconds: int, reason: str) -> None:
    """Tell nobody of what matches, for a time. What fires still at its end is told then."""
    until = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    wanted = {"rule": rule, "subject": subject, "labels": _labels(labels), "until": until, "reason": reason}
    row = session.client.post("silences", wanted)
    session.answer(row, lambda: f"Silence {row['id']} lasts until {moment(row['until'])} UTC.")


@alerts.command()
@click.argument("silence", type=click.IntRange(min=1))
@json_option
@pass_session
def unsilence(session: Session, silence: int) -> None:
    """End SILENCE now."""
    session.client.delete(f"silences/{silence}")
    session.answer({"silence": silence}, lambda: f"Silence {silence} is over.")


@alerts.command()
@json_option
@pass_session
def silences(session: Session) -> None:
    """Silences that are in force."""
    rows = session.client.every("silences", active="true")
    session.answer(rows, lambda: _silences(rows))


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for label in given:
        name, equals, value = label.partition("=")
        if not name or not equals:
            raise failure(Exit.USAGE, f"{label!r} is no label.", "Write it as rack=b12.")
        found[name] = value
    return found


def _table(rows: list[Row]) -> str:
    if not rows:
        return "No alerts."
    headers = ("ID", "SEVERITY", "STATE", "SINCE (UTC)", "WHAT", "SUBJECT", "WHO", "DETAIL")
    cells = [
        (
            str(row["id"]),
            row["severity"],
            "silenced" if row["silenced_until"] else row["state"],
            moment(row["fired_at"] or row["since"]),
            row["title"],
            row["subject"]["name"],
            row["acknowledged_by"] or UNKNOWN,
            row["text"],
        )
        for row in rows
    ]
    return table(headers, cells)


def _silences(rows: list[Row]) -> str:
    if not rows:
        return "No silences."
    cells = [
        (
            str(row["id"]),
            row["rule"] or "any",
            row["subject"] or "any",
            " ".join(f"{key}={value}" for key, value in sorted(row["labels"].items())) or "any",
            moment(row["until"]),
            row["created_by"],
            row["reason"],
        )
        for row in rows
    ]
    return table(("ID", "RULE", "SUBJECT", "LABELS", "UNTIL (UTC)", "WHO", "REASON"), cells)
