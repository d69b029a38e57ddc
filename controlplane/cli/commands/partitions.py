"""What partitions run: plan, assign, flip, release."""

from __future__ import annotations

import time

import click

from controlplane.cli import names
from controlplane.cli.assigning import Wish, carry_out, explained, preview, reader
from controlplane.cli.client import Row
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
@json_option
@click.pass_context
def plan(ctx: click.Context, partition: str, deployment: str, role: str) -> None:
    """Say what `assign` would do; nothing changes. Exit code 1: it would be refused."""
    session = ctx.ensure_object(Session)
    row = names.partition(session.client, partition)
    seen = preview(session, row, names.deployment(session.client, deployment), role)
    session.answer(seen, lambda: explained(names.label(row), seen))
    if seen["problems"]:
        ctx.exit(Exit.REFUSED)


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
    carry_out(session, row, target, role, Wish(reason, force, yes, wait, timeout_s))


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
    carry_out(session, row, row["deployment"], wanted, Wish(reason, force, yes, wait, timeout_s))


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
        row, seconds = wait_for(session, partition, reader(session, row), _empty, timeout_s=timeout_s, since=since)
    shown = {"partition": row, "waited": wait, "seconds": seconds}
    told = f"is empty after {seconds:.1f} s" if seconds is not None else "is released; its engine ends"
    session.answer(shown, lambda: f"{partition} {told}.")


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
    if replicas[role]["assigned"] == 1:
        text += f" It is the last {role} partition of {name}."
    return text
