"""Names as people type them, to rows of the API; and their completion in the shell."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import click

from controlplane.cli.client import Client, Row
from controlplane.cli.failures import Exit, Failure, failure
from controlplane.cli.session import Session

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def label(partition: Row) -> str:
    return f"{partition['node']['name']}/{partition['name']}"


def partition(client: Client, name: str) -> Row:
    node_name, _, own = name.partition("/")
    if not node_name or not own:
        raise failure(Exit.USAGE, f"{name!r} is no partition's name.", "Write NODE/PARTITION, such as node-1/p0.")
    for row in client.every("partitions", name=own):
        if row["node"]["name"] == node_name:
            return row
    raise _unknown("partition", name, [label(row) for row in client.every("partitions")])


def node(client: Client, name: str) -> Row:
    for row in client.every("nodes", name=name):
        return row
    raise _unknown("node", name, [row["name"] for row in client.every("nodes")])


def deployment(client: Client, name: str) -> Row:
    for row in client.every("deployments", name=name):
        return row
    raise _unknown("deployment", name, [row["name"] for row in client.every("deployments")])


def model(client: Client, name: str) -> Row:
    for row in client.every("models", name=name):
        return row
    raise _unknown("model", name, [row["name"] for row in client.every("models")])


def team(client: Client, name: str) -> Row:
    for row in client.every("teams", name=name):
        return row
    raise _unknown("team", name, [row["name"] for row in client.every("teams")])


def _unknown(noun: str, name: str, known: list[str]) -> Failure:
    close = difflib.get_close_matches(name, known, n=3) or known[:5]
    fix = f"Did you mean {', '.join(close)}?" if close else f"There is no {noun} yet."
    return failure(Exit.USAGE, f"There is no {noun} {name}.", fix)


def _completer(names: Callable[[Client], list[str]]) -> Completer:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return completed(ctx.find_object(Session) or Session(), incomplete, names)

    return complete


def completed(session: Session, incomplete: str, names: Callable[[Client], list[str]]) -> list[str]:
    try:
        return [name for name in names(session.client) if name.startswith(incomplete)]
    except Failure:
        return []  # a shell that is completing can show no error
    finally:
        session.close()


complete_partition = _completer(lambda client: [label(row) for row in client.every("partitions")])
complete_node = _completer(lambda client: [row["name"] for row in client.every("nodes")])
complete_deployment = _completer(lambda client: [row["name"] for row in client.every("deployments")])
complete_team = _completer(lambda client: [row["name"] for row in client.every("teams")])
