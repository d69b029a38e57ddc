"""Weights: where they lie, and having them fetched ahead of their use."""

from __future__ import annotations

import click

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import json_option, reason_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, moment, plain, share, size, table


@click.command()
@click.option("--node", shell_complete=names.complete_node, help="On this node.")
@click.option("--model", help="Of this registered model.")
@json_option
@pass_session
def weights(session: Session, node: str | None, model: str | None) -> None:
    """Which weights lie on a node, or where a model's lie; and how far what is fetched is."""
    if (node is None) == (model is None):
        raise failure(Exit.USAGE, "That is told of one node or of one model.", "Give --node or --model.")
    if node is not None:
        path = f"nodes/{names.node(session.client, node)['id']}"
    else:
        path = f"models/{names.model(session.client, model or '')['id']}"
    told = session.client.get(f"{path}/weights")
    session.answer(told, lambda: _told(told))


@click.command()
@click.argument("model")
@click.argument("node", shell_complete=names.complete_node)
@click.option("--back", is_flag=True, help="Take it back: what is there stays until room is needed.")
@reason_option
@json_option
@pass_session
def fetch(session: Session, model: str, node: str, back: bool, reason: str) -> None:
    """Have the weights of MODEL fetched to NODE ahead of their use, and kept there."""
    row, host = names.model(session.client, model), names.node(session.client, node)
    body = {"model": row["id"], "wanted": not back, "reason": reason}
    told = session.client.post(f"nodes/{host['id']}/weights", body)
    words = f"{model} is not wanted on {node} any more." if back else f"{model} is fetched to {node}."
    why_not = told["fetch_why_not"]
    session.answer(told, lambda: f"{words} But: {plain(why_not)}." if why_not and not back else words)


def _told(told: Row) -> str:
    lines = []
    if why_not := told.get("fetch_why_not"):
        lines.append(f"{plain(why_not)}.")
    elif room := told.get("fetch_room_bytes"):
        lines.append(f"Fetched weights may come to {size(room)} there.")
    if not told["weights"]:
        return "\n".join([*lines, "None of a registered model are known."])
    headers = ("MODEL", "NODE", "STATE", "ON DISK", "LAST USED", "WANTED BY", "MESSAGE")
    return "\n".join([*lines, table(headers, [_cells(row) for row in told["weights"]], right=(3,))])


def _cells(row: Row) -> tuple[str, ...]:
    wanted: Row = row["wanted"] or {}
    state, bytes, message = row["state"], size(row["bytes"]), row["message"]
    if state == "complete":
        state = "whole, checked" if row["checked_at"] else "whole"
    elif wanted:
        state, message = wanted["state"] or "asked for", wanted["message"]
        if total := wanted["total_bytes"]:
            state += f" {share(wanted['bytes'] / total)}"
            bytes = f"{size(wanted['bytes'])} of {size(total)}"
    by = UNKNOWN
    if wanted:
        by = plain(wanted["asked_by"]) if wanted["cause"] == "operator" else f"forecast {share(wanted['chance'])}"
    return row["model"], row["node"], state, bytes, moment(row["used_at"]), by, plain(message) or UNKNOWN
