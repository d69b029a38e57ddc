"""The log of a partition's engine."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator

import click

from controlplane.cli import names
from controlplane.cli.client import Row, retried
from controlplane.cli.failures import Exit, Failure, failure
from controlplane.cli.options import json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import plain

# The server keeps what somebody fetched minutes ago; what the agent adds to it comes within two of its reports.
SETTLE_LOOKS = 3
PATIENCE_LOOKS = 10  # the agent sends it with its next report or the one after


@click.command()
@click.argument("partition", shell_complete=names.complete_partition)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=200, show_default=True, help="Lines to begin with.")
@json_option
@pass_session
def logs(session: Session, partition: str, follow: bool, lines: int) -> None:
    """Show the end of PARTITION's engine log; with -f what comes after it too.

    Colours and other control characters are taken out. --json with -f gives one object a line.
    """
    row = names.partition(session.client, partition)
    pieces = _pieces(session, row)
    first = next(pieces)
    first["text"] = _last(first["text"], lines)
    if follow:
        _show(session, row, first)
        for piece in pieces:
            _show(session, row, piece)
        return
    for later in itertools.islice(pieces, SETTLE_LOOKS):
        first |= {"text": _last(first["text"] + later["text"], lines)}
        first |= {key: later[key] for key in ("at", "next_offset", "state")}
        if later["text"]:
            break
    session.answer(_shape(row, first), lambda: plain(first["text"]).rstrip("\n"))
    if first["state"] == "silent":
        session.say(f"{row['node']['name']} is silent: this is what was fetched before.")


def _pieces(session: Session, partition: Row) -> Iterator[Row]:
    """Without end: what is new at each look. The first one has text, or a failure says why none comes."""
    offset = -1
    began = False
    looks = 0
    while True:
        piece = _look(session, partition, offset, began)
        if piece is not None:
            if not began and not piece["text"]:
                looks += 1
                _require_hope(partition, piece, looks)
            else:
                if began and piece["text"] and piece["offset"] != offset:
                    session.say("-- not all of it was sent: some lines are missing, or the engine was started anew --")
                began, offset = True, piece["next_offset"]
                yield piece
        time.sleep(session.pace)


def _look(session: Session, partition: Row, offset: int, began: bool) -> Row | None:
    """None where the server is away for a moment while somebody follows."""
    found = retried(lambda: session.client.get(f"partitions/{partition['id']}/logs", offset=offset))
    if not isinstance(found, Failure):
        return found
    if not began:
        raise found
    return None


def _require_hope(partition: Row, piece: Row, looks: int) -> None:
    name, node = names.label(partition), partition["node"]["name"]
    if piece["state"] == "silent":
        fix = f"Look at the agent on {node}; the file itself is there, in its home's logs folder."
        raise failure(Exit.NOT_REACHED, f"{node} does not report, so the log of {name} cannot be fetched.", fix)
    if looks >= PATIENCE_LOOKS:
        fix = "Perhaps no engine was ever started there. See: forebay partitions"
        raise failure(Exit.NOT_REACHED, f"No log of {name} came.", fix)


def _last(text: str, lines: int) -> str:
    return "".join(text.splitlines(keepends=True)[-lines:])


def _shape(partition: Row, piece: Row) -> Row:
    kept = {key: piece[key] for key in ("state", "at", "next_offset", "text")}
    return {"partition": names.label(partition), **kept}


def _show(session: Session, partition: Row, piece: Row) -> None:
    if not piece["text"]:
        return
    if session.json:
        click.echo(json.dumps(_shape(partition, piece)))
    else:
        click.echo(plain(piece["text"]), nl=False)
