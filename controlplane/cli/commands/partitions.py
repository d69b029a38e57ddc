"""What one partition runs: assign, flip, release."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from controlplane.cli import names
from controlplane.cli.changing import Outcome, Proposal, Wish, carry_out, ends_an_engine
from controlplane.cli.client import Row
from controlplane.cli.explaining import assigned
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import ROLES, force_option, json_option, reason_option, wait_options, yes_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.waiting import wait as wait_for

_OTHER = {"prefill": "decode", "decode": "prefill"}
partition_argument = click.argument("partition", shell_complete=names.complete_partition)
deployment_argument = click.argument("deployment", shell_complete=names.complete_deployment)


@click.command()
@partition_argument
@deployment_argument
@click.argument("role", type=click.Choice(ROLES))
@reason_option
@force_option
@yes_option
@wait_options
@json_option
@pass_session
def assign(
    session: Session,
    *,
    partition: str,
    deployment: str,
    role: str,
    reason: str,
    force: bool,
    yes: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Have PARTITION (as node-1/p0) run DEPLOYMENT in ROLE.

    Asks first where an engine ends or a deployment would lack one.
    """
    row = names.partition(session.client, partition)
    target = names.deployment(session.client, deployment)
    _have(session, row, target, role, Wish(reason, force, yes, wait, timeout_s))


@click.command()
@partition_argument
@click.argument("role", type=click.Choice(list(_OTHER)), required=False)
@reason_option
@force_option
@yes_option
@wait_options
@json_option
@pass_session
def flip(
    session: Session,
    *,
    partition: str,
    role: str | None,
    reason: str,
    force: bool,
    yes: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Turn prefill into decode or decode into prefill, and say how long it took.

    With ROLE it ends in that role whatever it is now, so it may be repeated safely.
    """
    row = names.partition(session.client, partition)
    if row["deployment"] is None:
        message = f"{partition} is unassigned: there is no role to flip."
        raise failure(Exit.REFUSED, message, f"Run: forebay assign {partition} DEPLOYMENT ROLE")
    wanted = role or _OTHER.get(row["role"])
    if wanted is None:
        message = f"{partition} is {row['role']}, which has no opposite."
        raise failure(Exit.REFUSED, message, f"Say which role: forebay flip {partition} prefill")
    _have(session, row, row["deployment"], wanted, Wish(reason, force, yes, wait, timeout_s))


@click.command()
@partition_argument
@reason_option
@yes_option
@wait_options
@json_option
@pass_session
def release(session: Session, *, partition: str, reason: str, yes: bool, wait: bool, timeout_s: float) -> None:
    """Take PARTITION's assignment away; its engine ends once its requests have ended."""
    row = names.partition(session.client, partition)
    if row["deployment"] is not None:
        session.confirm(_lost(session, row), yes=yes)
    since = time.monotonic()
    body = {"reason": reason, "expected_generation": row["generation"]}
    row = session.client.post(f"partitions/{row['id']}/release", body)
    seconds = None
    if wait:
        row, seconds = wait_for(session, partition, _reader(session, row), _empty, timeout_s=timeout_s, since=since)
    shown = {"partition": row, "waited": wait, "seconds": seconds}
    told = f"is empty after {seconds:.1f} s" if seconds is not None else "is released; its engine ends"
    session.answer(shown, lambda: f"{partition} {told}.")


def _have(session: Session, row: Row, deployment: Row, role: str, wish: Wish) -> None:
    """One move as a change of its own; where it is so already, only the wait for its engine."""
    move = {"partition": row["id"], "deployment": deployment["id"], "role": role}
    done = carry_out(session, Proposal("changes", {"moves": [move]}), wish, ask=ends_an_engine)
    read, seconds = _reader(session, row), done.seconds
    if done.change is None and wish.wait:
        name, ready = names.label(row), _ready(names.label(row), deployment["name"], role)
        row, seconds = wait_for(session, name, read, ready, timeout_s=wish.timeout_s, since=done.since)
    else:
        row = read()
    shown = _shown(row, done, wish, seconds)
    session.answer(shown, lambda: _told(names.label(row), shown, done))


def _reader(session: Session, partition: Row) -> Callable[[], Row]:
    return lambda: session.client.get(f"partitions/{partition['id']}")


def _ready(name: str, deployment: str, role: str) -> Callable[[Row], bool]:
    """The agent says ready, of exactly this. Raises where that will not come by waiting."""

    def done(row: Row) -> bool:
        now = (row["deployment"] and row["deployment"]["name"], row["role"])
        if now != (deployment, role):
            message = f"Somebody changed {name} meanwhile: it is now {assigned(row)}."
            raise failure(Exit.CONFLICT, message, "See: forebay audit")
        if row["status"] == "crash_looping":
            why = f": {row['message']}" if row["message"] else "."
            text = f"{name} is crash-looping: its engine failed {row['restarts']} times in a row{why}"
            raise failure(Exit.NOT_REACHED, text.strip(), f"Read its log: forebay logs {name}")
        return bool(row["confirmed"] and row["status"] == "ready")

    return done


def _shown(row: Row, done: Outcome, wish: Wish, seconds: float | None) -> Row:
    [move] = done.seen["moves"]
    return {
        "partition": row,
        "before": _place(move["before"]),
        "after": _place(move["after"]),
        "action": move["action"],
        "forced": done.forced,
        "waited": wish.wait,
        "seconds": seconds,
        "change": done.change["id"] if done.change else None,
    }


def _place(place: Row) -> Row:
    return {"deployment": place["deployment"] and place["deployment"]["name"], "role": place["role"]}


def _told(name: str, shown: Row, done: Outcome) -> str:
    after = assigned(done.seen["moves"][0]["after"])
    if shown["waited"]:
        return f"{name} runs {after}: confirmed after {shown['seconds']:.1f} s ({shown['action']})."
    if shown["change"] is None:
        return f"{name} shall run {after} already."
    return f"{name} shall run {after} ({shown['action']}). Follow it with: forebay changes {shown['change']} --watch"


def _empty(row: Row) -> bool:
    if row["deployment"] is not None:
        text = f"Somebody assigned {names.label(row)} to {row['deployment']['name']} meanwhile."
        raise failure(Exit.CONFLICT, text, "See: forebay audit")
    return bool(row["status"] == "unassigned")


def _lost(session: Session, row: Row) -> str:
    """What goes with the assignment."""
    name, role = row["deployment"]["name"], row["role"]
    text = f"{names.label(row)} runs {name} as {role} ({row['status']}); its engine ends."
    replicas = session.client.get(f"deployments/{row['deployment']['id']}")["replicas"]
    if not row["overflow"] and replicas[role]["assigned"] == 1:
        text += f" It is the last {role} partition of {name}."
    return text
