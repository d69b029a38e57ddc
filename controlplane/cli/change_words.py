"""Changes for people: one a line, or one in full."""

from __future__ import annotations

from controlplane.cli import moves, text
from controlplane.cli.client import Row
from controlplane.cli.explaining import assigned
from controlplane.cli.text import UNKNOWN, moment, plain


def table(rows: list[Row]) -> str:
    if not rows:
        return "No such changes."
    headers = ("CHANGE", "AT (UTC)", "WHO", "KIND", "STATE", "STEPS", "MOVES", "REASON")
    cells = [
        (
            str(row["id"]),
            moment(row["created_at"]),
            row["actor"],
            row["kind"] if row["undoes"] is None else f"undo of {row['undoes']}",
            state(row),
            f"{row['steps_done']}/{row['steps_total']}",
            " ".join(moves.text(move) for move in row["moves"]) or UNKNOWN,
            row["reason"] or UNKNOWN,
        )
        for row in rows
    ]
    return text.table(headers, cells, right=(0,))


def state(row: Row) -> str:
    if row["undone_by"] is not None:
        return f"undone by {row['undone_by']}"
    state = str(row["state"]).replace("_", " ")
    return f"{state}, backwards" if row["backwards"] and row["state"] in ("running", "stopped") else state


def detailed(row: Row) -> str:
    why = f": {row['reason']}" if row["reason"] else ""
    lines = [f"Change {row['id']} ({row['kind']}) by {row['actor']} at {moment(row['created_at'])} UTC{why}"]
    lines.append(f"State: {state(row)}. {row['message']}".rstrip())
    for move in row["moves"]:
        lines.append(f"  {move['partition']['name']}: {assigned(move['before'])} -> {assigned(move['after'])}")
    for step in row["steps"]:
        said = " ".join(part for part in (step["text"], step["progress"], step["message"]) if part)
        lines.append(f"{step['number']:3}. {step['state']}: {said}")
    return plain("\n".join(lines))
