"""Moves as people write them: node-1/p0=chat:prefill, or node-1/p0=none."""

from __future__ import annotations

import click

from controlplane.cli import names
from controlplane.cli.client import Client, Row
from controlplane.cli.failures import Exit, failure
from controlplane.cli.options import ROLES
from controlplane.cli.session import Session

NONE = "none"
SAY = "Write NODE/PARTITION=DEPLOYMENT:ROLE, such as node-1/p0=chat:prefill, or NODE/PARTITION=none."


def parse(client: Client, words: tuple[str, ...]) -> list[Row]:
    """As the API takes them; names are looked up."""
    return [_move(client, word) for word in words]


def text(move: Row) -> str:
    """A move of a preview as it is written."""
    after = move["after"]
    wanted = f"{after['deployment']['name']}:{after['role']}" if after["deployment"] else NONE
    return f"{move['partition']['name']}={wanted}"


def wire(move: Row) -> Row:
    """A move of a preview as the API takes it."""
    after = move["after"]
    deployment = after["deployment"]
    return {
        "partition": move["partition"]["id"],
        "deployment": deployment["id"] if deployment else None,
        "role": after["role"],
    }


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The partition up to the =, then what it could run."""
    partition, equals, _ = incomplete.partition("=")
    if not equals:
        return [f"{name}=" for name in names.complete_partition(ctx, param, incomplete)]
    found = [f"{name}:{role}" for name in names.complete_deployment(ctx, param, "") for role in ROLES]
    return [word for wanted in [*found, NONE] if (word := f"{partition}={wanted}").startswith(incomplete)]


def complete_mine(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the latest changes."""
    session = ctx.find_object(Session) or Session()
    return names.completed(session, incomplete, lambda client: [str(row["id"]) for row in client.every("changes", 30)])


def _move(client: Client, word: str) -> Row:
    place, equals, wanted = word.partition("=")
    name, colon, role = wanted.rpartition(":")
    if not equals or not wanted or (wanted != NONE and (not colon or not name or role not in ROLES)):
        raise failure(Exit.USAGE, f"{word!r} is no move.", SAY)
    partition = names.partition(client, place)
    if wanted == NONE:
        return {"partition": partition["id"], "deployment": None, "role": None}
    return {"partition": partition["id"], "deployment": names.deployment(client, name)["id"], "role": role}
