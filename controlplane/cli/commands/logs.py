"""Logs: of a partition's engine, of a node's agent, of the control plane's own processes."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from controlplane.cli import names
from controlplane.cli.client import Client, Row, retried
from controlplane.cli.failures import Exit, Failure, failure
from controlplane.cli.options import Length, json_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import plain

# The server keeps what somebody fetched minutes ago; what its owner adds to it comes within two reports.
SETTLE_LOOKS = 3
PATIENCE_LOOKS = 10  # it is sent with the next report or the one after
LINES = 200
LONGEST_GREPPED = 4000  # characters of a line that are compared: a pattern of one's own can be slow


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose log: `kind` and `name` for people and programs, `owner` who has to send it, `path` where it is read."""

    kind: str
    name: str
    path: str
    owner: str
    absent: str  # why none may be there


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which lines. `asked` is for the server."""

    grep: re.Pattern[str] | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    def of(self, text: str) -> str:
        if self.grep is None:
            return text
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if self.grep.search(plain(line)[:LONGEST_GREPPED]))


class Pattern(click.ParamType[re.Pattern[str], Any]):
    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        try:
            return re.compile(value, re.IGNORECASE) if str(value).islower() else re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}.", param, ctx)


@click.command()
@click.argument("partition", required=False, shell_complete=names.complete_partition)
@click.option("--node", help="The log of this node's agent instead.", shell_complete=names.complete_node)
@click.option("--gateway", is_flag=True, help="The log of the gateway instead.")
@click.option(
    "--process", help="The log of this process of the control plane instead; a wrong name tells which there are."
)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=1), help=f"Lines to begin with. Default: {LINES}.")
@click.option("--since", type=Length(), help="Begin with what was written in that time, as 10m.")
@click.option("--previous", is_flag=True, help="The log of the engine that ran there before.")
@click.option("--level", type=click.Choice(["debug", "info", "warning", "error"]), help="Only lines at least as grave.")
@click.option("--grep", type=Pattern(), help="Only lines with this regular expression; in any case if all lower case.")
@json_option
@pass_session
def logs(
    session: Session,
    *,
    partition: str | None,
    node: str | None,
    gateway: bool,
    process: str | None,
    follow: bool,
    lines: int | None,
    since: int | None,
    previous: bool,
    level: str | None,
    grep: re.Pattern[str] | None,
) -> None:
    """Show the end of a log; with -f what comes after it too. PARTITION is of the engine whose log it is.

    Colours and other control characters are taken out. --json with -f gives one object a line.
    """
    if previous and (follow or since is not None):
        raise failure(Exit.USAGE, "What is over does not go on.", "Leave out -f and --since, or --previous.")
    subject = _subject(session.client, partition, node, gateway=gateway, process=process)
    chosen = Chosen(grep, {"level": level} if level else {})
    pieces = _pieces(session, subject, chosen, since_s=since, previous=previous)
    first = next(pieces)
    kept = lines or (LINES if since is None else None)
    first["text"] = _last(chosen.of(first["text"]), kept)
    if follow:
        _show(session, subject, first)
        for piece in pieces:
            _show(session, subject, {**piece, "text": chosen.of(piece["text"])})
        return
    for later in itertools.islice(pieces, 0 if previous or since is not None else SETTLE_LOOKS):
        first |= {"text": _last(first["text"] + chosen.of(later["text"]), kept)}
        first |= {key: later[key] for key in ("at", "next_offset", "state")}
        if later["text"]:
            break
    session.answer(_shape(subject, first), lambda: plain(first["text"]).rstrip("\n"))
    if first["state"] == "silent":
        session.say(f"{subject.owner} is silent: this is what was fetched before.")


def _subject(client: Client, partition: str | None, node: str | None, *, gateway: bool, process: str | None) -> Subject:
    if [bool(partition), bool(node), gateway, bool(process)].count(True) != 1:
        raise failure(Exit.USAGE, "Say whose log: one of PARTITION, --node, --gateway and --process.")
    if partition:
        row = names.partition(client, partition)
        absent = "Perhaps no engine was ever started there. See: forebay partitions"
        return Subject("partition", names.label(row), f"partitions/{row['id']}/logs", row["node"]["name"], absent)
    if node:
        row = names.node(client, node)
        absent = "An agent of an earlier version does not send its own log."
        return Subject("node", row["name"], f"nodes/{row['id']}/logs", row["name"], absent)
    return _process(client, process)


def _process(client: Client, name: str | None) -> Subject:
    """The one of that name, or the only gateway."""
    rows = client.get("processes")["results"]
    found = [row for row in rows if (row["name"] == name if name else row["kind"] == "gateway")]
    if len(found) == 1:
        name = found[0]["name"]
        return Subject("process", name, f"processes/{name}/logs", name, "Perhaps it has said nothing yet.")
    known = ", ".join(row["name"] for row in rows)
    message = (
        f"There is no process {name}." if name else "There is more than one gateway." if found else "No gateway runs."
    )
    raise failure(Exit.USAGE, message, f"Say --process with one of {known}." if known else "None was heard of.")


def _pieces(
    session: Session, subject: Subject, chosen: Chosen, *, since_s: int | None, previous: bool
) -> Iterator[Row]:
    """Without end: what is new at each look. The first one has come from its owner, or a failure says why none does."""
    offset, began, looks = -1, False, 0
    if since_s is not None or previous:
        which = {"previous": "true"} if previous else {"since_s": since_s}
        piece = session.client.get(subject.path, **which, **chosen.asked)
        began, offset = True, piece["next_offset"]
        yield piece
    while True:
        found = _look(session, subject, offset, began, chosen)
        if found is not None:
            if not began and found["at"] is None:
                looks += 1
                _require_hope(subject, found, looks)
            else:
                if began and found["next_offset"] != found["offset"] != offset:
                    session.say("-- not all of it was sent: some lines are missing, or the engine was started anew --")
                began, offset = True, found["next_offset"]
                yield found
        time.sleep(session.pace)


def _look(session: Session, subject: Subject, offset: int, began: bool, chosen: Chosen) -> Row | None:
    """None where the server is away for a moment while somebody follows."""
    found = retried(lambda: session.client.get(subject.path, offset=offset, **chosen.asked))
    if not isinstance(found, Failure):
        return found
    if not began:
        raise found
    return None


def _require_hope(subject: Subject, piece: Row, looks: int) -> None:
    if piece["state"] == "silent":
        fix = f"Look at the agent on {subject.owner}; the file itself is there, in its home's logs folder."
        message = f"{subject.owner} does not report, so the log of {subject.name} cannot be fetched."
        raise failure(Exit.NOT_REACHED, message, fix)
    if looks >= PATIENCE_LOOKS:
        raise failure(Exit.NOT_REACHED, f"No log of {subject.name} came.", subject.absent)


def _last(text: str, lines: int | None) -> str:
    return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:])


def _shape(subject: Subject, piece: Row) -> Row:
    kept = {key: piece[key] for key in ("state", "at", "next_offset", "text")}
    return {subject.kind: subject.name, **kept}


def _show(session: Session, subject: Subject, piece: Row) -> None:
    if not piece["text"]:
        return
    if session.json:
        click.echo(json.dumps(_shape(subject, piece)))
    else:
        click.echo(plain(piece["text"]), nl=False)
