"""Whole nodes: cordon, uncordon, drain, join-token."""

from __future__ import annotations

import time

import click

from controlplane.cli import names
from controlplane.cli.changing import Proposal, Wish, always, carry_out
from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import Length, force_option, json_option, reason_option, wait_options, yes_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import counted, moment, word
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
@click.option("--deadline", "deadline_s", type=Length(), help="End engines then at the latest, as 90s, 10m or 2h.")
@click.option("--move", "move", is_flag=True, help="First give its engines other places, where there is room.")
@click.option("--cancel", is_flag=True, help="Call a drain off: NODE is again as it was before.")
@reason_option
@force_option
@yes_option
@wait_options
@json_option
@pass_session
def drain(
    session: Session,
    *,
    node: str,
    deadline_s: int | None,
    move: bool,
    cancel: bool,
    reason: str,
    force: bool,
    yes: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Cordon NODE and end its engines once their requests have ended. Assignments are kept for uncordon."""
    if cancel:
        if move or deadline_s is not None:
            raise failure(Exit.USAGE, "--cancel goes with neither --move nor --deadline.", "Leave those out.")
        _intend(session, node, "cancel_drain", reason)
        return
    found, since = names.node(session.client, node), time.monotonic()
    wanted: Row = {} if deadline_s is None else {"deadline_s": deadline_s}
    wish, change = Wish(reason, force, yes, wait, timeout_s), None
    if move:
        change = _move_away(session, found, wanted, wish)
    if change is None:
        if engines := _engines(session.client.get(f"nodes/{found['id']}")):
            session.confirm(
                f"{node} has {counted(len(engines), 'engine')} that will end: {', '.join(engines)}.", yes=yes
            )
        since = time.monotonic()
        session.client.post(f"nodes/{found['id']}/drain", {"reason": reason, **wanted})
    _drained_at_last(session, node, change, wish, since)


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


def _move_away(session: Session, node: Row, wanted: Row, wish: Wish) -> Row | None:
    """The change that moves its engines and drains it in the end; None where none of them has a place to go to."""
    proposal = Proposal(f"nodes/{node['id']}/drain", {"move": True, **wanted})
    done = carry_out(session, proposal, wish, ask=always)
    if done.change is None:
        session.say(f"No engine of {node['name']} has to move, or has a place to move to.")
    return done.change


def _drained_at_last(session: Session, node: str, change: Row | None, wish: Wish, since: float) -> None:
    def read() -> Row:
        return names.node(session.client, node)

    if wish.wait:
        row, seconds = wait_for(session, node, read, _drained, timeout_s=wish.timeout_s, since=since)
        told = f"is drained after {seconds:.1f} s"
    else:
        row, seconds, told = read(), None, "drains" if change is None else f"drains once change {change['id']} is done"
    shown = {"node": row, "waited": wish.wait, "seconds": seconds, "change": change and change["id"]}
    session.answer(shown, lambda: f"{node} {told}.")


def _drained(row: Row) -> bool:
    if not row["draining"]:
        raise failure(Exit.CONFLICT, f"Somebody ended the drain of {row['name']} meanwhile.", "See: forebay audit")
    return bool(row["status"] == "drained")


def _engines(node: Row) -> list[str]:
    return [row["name"] for row in node["partitions"] if row["phase"] not in (None, "exited")]
