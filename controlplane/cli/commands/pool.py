"""The pool: its slots and who waits; setting partitions aside for it."""

from __future__ import annotations

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.options import json_option, reason_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, counted, span, table, word


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def pool(ctx: click.Context) -> None:
    """Slots, the model in each, and the models that wait for one."""
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.ensure_object(Session)
    found = session.client.get("pool")
    session.answer(found, lambda: _told(found))


@pool.command()
@click.argument("partition", shell_complete=names.complete_partition)
@reason_option
@json_option
@pass_session
def add(session: Session, *, partition: str, reason: str) -> None:
    """Set PARTITION (as node-1/p0) aside for whichever pooled model is asked for."""
    _set(session, partition, True, reason)


@pool.command()
@click.argument("partition", shell_complete=names.complete_partition)
@reason_option
@json_option
@pass_session
def remove(session: Session, *, partition: str, reason: str) -> None:
    """Take PARTITION back. The model in it stays until it is released."""
    _set(session, partition, False, reason)


@pool.command()
@click.option("--deployment", shell_complete=names.complete_deployment, help="Only of this model.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@click.option("--last", type=click.IntRange(1, 500), default=20, show_default=True)
@json_option
@pass_session
def history(session: Session, *, deployment: str | None, failed: bool, last: int) -> None:
    """The last models that were woken: how long it took, in which slot, who left for them."""
    asked = {"page_size": str(last)} | ({"state": "failed"} if failed else {})
    if deployment:
        asked["deployment"] = str(names.deployment(session.client, deployment)["id"])
    rows = session.client.get("activations", **asked)["results"]
    session.answer(rows, lambda: _activations(rows))


def _set(session: Session, partition: str, pool: bool, reason: str) -> None:
    row = names.partition(session.client, partition)
    changed = session.client.patch(f"partitions/{row['id']}", {"pool": pool, "reason": reason})
    said = "is a slot of the pool now" if pool else "is no slot of the pool any more"
    session.answer(changed, lambda: f"{partition} {said}.")


def _told(found: Row) -> str:
    if not found["slots"]:
        return "The pool has no slots. Set a partition aside with: forebay pool add NODE/PARTITION"
    counts = [slot["place"] for slot in found["slots"]]
    parts = [
        f"{counted(len(counts), 'slot')}: " + ", ".join(f"{counts.count(one)} {one}" for one in sorted(set(counts)))
    ]
    parts.append(_held(found))
    headers = ["SLOT", "IS", "SINCE", "MODEL", "IN FLIGHT", "IDLE", "KEEP-ALIVE"]
    parts.append(table(headers, _slots(found), right=(2, 4, 5, 6)))
    if asleep := _asleep(found):
        parts.append(table(["ASLEEP", "SLOT", "LEVEL", "FOR"], asleep, right=(2, 3)))
    if found["floors"]:
        rows = [[one["team"], str(one["floor"]), str(one["used"])] for one in found["floors"]]
        parts.append(table(["TEAM", "FLOOR, GPUS", "IN USE"], rows, right=(1, 2)))
    if found["waiting"]:
        parts.append(_activations(found["waiting"]))
    return "\n\n".join(parts)


def _held(found: Row) -> str:
    """How many slots are to be held, in use or free, and why."""
    if found["held_wanted"] is None:
        return f"To hold: not known yet, so as many as before. Free at least: {found['free_wanted']}."
    sizes = found["held_by_gpus"]
    by_size = f" ({', '.join(f'{count} of {gpus}' for gpus, count in sizes.items())} GPUs)" if len(sizes) > 1 else ""
    return f"To hold: {found['held_wanted']}{by_size}, {found['held_reason']}. Free at least: {found['free_wanted']}."


def _slots(found: Row) -> list[list[str]]:
    return [
        [
            _name(slot),
            slot["place"],
            "" if slot["since"] is None else span(max(0.0, found["now"] - slot["since"])),
            _model(slot),
            _known(slot, "in_flight", str),
            _known(slot, "idle_s", span),
            _known(slot, "keep_alive_s", span),
        ]
        for slot in found["slots"]
    ]


def _model(slot: Row) -> str:
    """With the role and the slot of the other half where it is one of a pair."""
    name = slot["deployment"]["name"] if slot["deployment"] else ""
    return f"{name} ({slot['role']}, with {', '.join(slot['pair_with'])})" if slot["pair_with"] else name


def _asleep(found: Row) -> list[list[str]]:
    return [
        [one["deployment"]["name"], _name(slot), str(one["level"]), span(max(0.0, found["now"] - one["since"]))]
        for slot in found["slots"]
        for one in slot["sleepers"]
    ]


def _name(slot: Row) -> str:
    return f"{slot['node']['name']}/{slot['partition']['name']}"


def _known(slot: Row, key: str, say: object) -> str:
    if slot["deployment"] is None:
        return ""
    value = slot[key]
    return UNKNOWN if value is None else str(say(value) if callable(say) else value)


def _activations(rows: list[Row]) -> str:
    lines = [
        [
            row["deployment"]["name"],
            "broke later" if row["broke_at"] else word(row["state"]),
            f"{row['wait_s']:.1f} s",
            str(row["waiters"]),
            row["slot"],
            row["evicted"],
            row["message"] or row["reason"],
        ]
        for row in rows
    ]
    return table(["MODEL", "STATE", "WAITED", "REQUESTS", "SLOT", "LEFT FOR IT", "WHY"], lines, right=(2, 3))
