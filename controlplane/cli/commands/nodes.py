"""Whole nodes: cordon, uncordon, drain, join-token."""

from __future__ import annotations

import time

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import Length, json_option, reason_option, wait_options, yes_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import moment, word
from controlplane.cli.waiting import wait as wait_for

node_argument = click.argument("node", shell_complete=names.complete_node)


@click.command()
@node_argument
@reason_option
@json_option
@pass_session
def cordon(session: Session, node: str, reason: str) -> None:
    """Place nothing new on NODE; what runs there goes on."""
    _intend(session, node, "cordon", reason)


@click.command()
@node_argument
@reason_option
@json_option
@pass_session
def uncordon(session: Session, node: str, reason: str) -> None:
    """Let NODE take part again; what a drain had ended starts."""
    _intend(session, node, "uncordon", reason)


@click.command()
@node_argument
@reason_option
@yes_option
@wait_options
@json_option
@pass_session
def drain(session: Session, *, node: str, reason: str, yes: bool, wait: bool, timeout_s: float) -> None:
    """Cordon NODE and end its engines once their requests have ended. Assignments are kept for uncordon."""
    found = names.node(session.client, node)
    engines = _engines(session.client.get(f"nodes/{found['id']}"))
    if engines:
        session.confirm(f"{node} has {len(engines)} engines that will end: {', '.join(engines)}.", yes=yes)
    since = time.monotonic()
    row = session.client.post(f"nodes/{found['id']}/drain", {"reason": reason})
    seconds = None
    if wait:
        row, seconds = wait_for(
            session, node, lambda: names.node(session.client, node), _drained, timeout_s=timeout_s, since=since
        )
    told = f"is drained after {seconds:.1f} s" if seconds is not None else "drains"
    session.answer({"node": row, "waited": wait, "seconds": seconds}, lambda: f"{node} {told}.")


@click.command("join-token")
@node_argument
@click.option("--for", "seconds", type=Length(), help="How long it can be used, as 15m or 2h. Default: an hour.")
@json_option
@pass_session
def join_token(session: Session, node: str, seconds: int | None) -> None:
    """Make a token with which the host NODE may join, once; shows the command to run there. Admins only."""
    made = session.client.post("join-tokens", {"node_name": node, "ttl_s": seconds})
    session.answer(made, lambda: str(made["command"]))
    session.say(f"Run this on {node}. It works once, until {moment(made['expires_at'])} UTC, and is not shown again.")


def _intend(session: Session, node: str, verb: str, reason: str) -> None:
    found = names.node(session.client, node)
    row = session.client.post(f"nodes/{found['id']}/{verb}", {"reason": reason})
    shown = {"node": row, "waited": False, "seconds": None}
    session.answer(shown, lambda: f"{node} is {word(row['status'])}.")


def _drained(row: Row) -> bool:
    if not row["draining"]:
        raise failure(Exit.CONFLICT, f"Somebody ended the drain of {row['name']} meanwhile.", "See: forebay audit")
    return bool(row["status"] == "drained")


def _engines(node: Row) -> list[str]:
    return [row["name"] for row in node["partitions"] if row["phase"] not in (None, "exited")]
