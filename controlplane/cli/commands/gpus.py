"""GPUs: what they were measured to be, measuring them again, and accepting one that did not pass."""

from __future__ import annotations

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import json_option, reason_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, moment, size, table


@click.command()
@click.option("--node", shell_complete=names.complete_node, help="Only of this node.")
@json_option
@pass_session
def gpus(session: Session, node: str | None) -> None:
    """GPUs and CPU slots: what they were last measured to be, and those that did not pass."""
    only: Row = {} if node is None else {"node": str(names.node(session.client, node)["id"])}
    rows = session.client.every("gpus", None, **only)
    session.answer(rows, lambda: _table(rows))


@click.command()
@click.argument("target", metavar="NODE[/gpuN]", shell_complete=names.complete_node)
@click.option("--cancel", is_flag=True, help="Give up what is wanted or under way.")
@click.option("--accept", is_flag=True, help="Use the GPU as it is, though it did not pass. Give a --reason.")
@click.option("--unaccept", is_flag=True, help="Take an acceptance back.")
@reason_option
@json_option
@pass_session
def qualify(session: Session, *, target: str, cancel: bool, accept: bool, unaccept: bool, reason: str) -> None:
    """Measure a GPU, or all of NODE that nothing is assigned to, as soon as nothing is on them."""
    verbs = {"cancel_qualification": cancel, "accept": accept, "unaccept": unaccept}
    chosen = [verb for verb, wanted in verbs.items() if wanted] or ["qualify"]
    node, _, gpu = target.partition("/")
    if len(chosen) > 1:
        raise failure(Exit.USAGE, "--cancel, --accept and --unaccept do not go together.", "Choose one of them.")
    if not gpu and chosen != ["qualify"]:
        raise failure(Exit.USAGE, "That is decided of one GPU.", f"Write NODE/gpuN, as {node}/gpu0.")
    if gpu:
        _one(session, _gpu(session, node, gpu), chosen[0], reason)
        return
    made = session.client.post(f"nodes/{names.node(session.client, node)['id']}/qualify", {"reason": reason})
    session.answer(made, lambda: "\n".join(_wanted(row) for row in made["qualifications"]))


def _one(session: Session, found: Row, verb: str, reason: str) -> None:
    answer = session.client.post(f"gpus/{found['id']}/{verb}", {"reason": reason})
    name = f"{found['node']['name']}/gpu{found['index']}"
    words = {
        "qualify": lambda: _wanted(answer),
        "cancel_qualification": lambda: f"{name} is not to be measured now.",
        "accept": lambda: f"{name} may be used as it is.",
        "unaccept": lambda: f"{name}: {answer['flag']}" if answer["flag"] else f"Nothing is against {name}.",
    }
    session.answer(answer, words[verb])


def _gpu(session: Session, node: str, gpu: str) -> Row:
    host = names.node(session.client, node)
    rows = list(session.client.every("gpus", node=str(host["id"])))
    for row in rows:
        if gpu in (f"gpu{row['index']}", row["uuid"]):
            return row
    known = ", ".join(f"{node}/gpu{row['index']}" for row in rows) or "none yet"
    raise failure(Exit.USAGE, f"There is no GPU {node}/{gpu}.", f"Its GPUs: {known}.")


def _wanted(row: Row) -> str:
    why = f": {row['message']}" if row["message"] else ""
    return f"{row['gpu']} is to be measured, for about {row['soak_s']:.0f} s and a little more ({row['state']}{why})."


def _table(rows: list[Row]) -> str:
    headers = ["GPU", "NAME", "MEMORY", "BF16 TFLOP/S", "GB/S", "MEASURED", "AGAINST IT"]
    return table(headers, [_cells(row) for row in rows], right=(2, 3, 4))


def _cells(row: Row) -> list[str]:
    found: Row = row["qualification"] or {}
    accepted = f"accepted by {found['accepted_by']}" if found.get("accepted_by") else ""
    return [
        f"{row['node']['name']}/gpu{row['index']}",
        row["name"],
        size(row["memory_bytes"]),
        _rate(found.get("bf16_tflops")),
        _rate(found.get("memory_gbs")),
        moment(found.get("measured_at")),
        row["flag"] or accepted,
    ]


def _rate(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"
