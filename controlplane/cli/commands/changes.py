"""Several partitions at once: plan, apply, move, undo; and changes that are made already."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from controlplane.cli import change_words, moves, names
from controlplane.cli.changing import Proposal, Wish, always, answer, carry_out
from controlplane.cli.client import Row
from controlplane.cli.explaining import explained
from controlplane.cli.failures import Exit, failure
from controlplane.cli.following import follow
from controlplane.cli.options import (
    ROLES,
    dry_run_option,
    force_option,
    json_option,
    reason_option,
    wait_options,
    yes_option,
)
from controlplane.cli.session import Session, pass_session

change_argument = click.argument("change", type=click.IntRange(min=1), shell_complete=moves.complete_mine)
move_arguments = click.argument("words", metavar="MOVE...", nargs=-1, required=True, shell_complete=moves.complete)


@click.command()
@move_arguments
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep the plan in this file, for apply.")
@json_option
@click.pass_context
def plan(ctx: click.Context, words: tuple[str, ...], save: Path | None) -> None:
    """Say what these moves would do together; nothing changes. Exit code 1: they would be refused.

    A MOVE is NODE/PARTITION=DEPLOYMENT:ROLE, as node-1/p0=chat:prefill, or NODE/PARTITION=none. A single one may be
    written as for assign: PARTITION DEPLOYMENT ROLE.
    """
    session = ctx.ensure_object(Session)
    if len(words) == 3 and words[2] in ROLES and "=" not in words[0]:
        words = (f"{words[0]}={words[1]}:{words[2]}",)
    proposal = Proposal("changes", {"moves": moves.parse(session.client, words)})
    seen = proposal.preview(session)
    if save is not None:
        _save(save, session, seen)
    session.answer(seen, lambda: explained(seen))
    if seen["problems"]:
        ctx.exit(Exit.REFUSED)


@click.command()
@click.argument("words", metavar="FILE|MOVE...", nargs=-1, required=True, shell_complete=moves.complete)
@reason_option
@force_option
@yes_option
@wait_options
@json_option
@pass_session
def apply(
    session: Session, *, words: tuple[str, ...], reason: str, force: bool, yes: bool, wait: bool, timeout_s: float
) -> None:
    """Make these moves, or those of a plan kept in FILE, one safe step at a time.

    A kept plan is refused (exit code 4) when somebody has changed meanwhile what it concerns.
    """
    if len(words) == 1 and "=" not in words[0]:
        proposal = _kept(Path(words[0]), session)
    else:
        proposal = Proposal("changes", {"moves": moves.parse(session.client, words)})
    _make(session, proposal, Wish(reason, force, yes, wait, timeout_s))


@click.command()
@click.argument("deployment", shell_complete=names.complete_deployment)
@click.argument("gpus", type=click.IntRange(min=1))
@click.argument("from_role", metavar="FROM", type=click.Choice(ROLES))
@click.argument("to_role", metavar="TO", type=click.Choice(ROLES))
@click.option("--to", "other", help="Of this deployment.", shell_complete=names.complete_deployment)
@dry_run_option
@reason_option
@force_option
@yes_option
@wait_options
@json_option
@pass_session
def move(
    session: Session,
    *,
    deployment: str,
    gpus: int,
    from_role: str,
    to_role: str,
    other: str | None,
    dry_run: bool,
    reason: str,
    force: bool,
    yes: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Move GPUS GPUs of DEPLOYMENT from one role to another, as: forebay move chat 2 decode prefill

    The server chooses the partitions: ready ones with the fewest requests, relabels before replacements.
    """
    client = session.client
    shift: Row = {"deployment": names.deployment(client, deployment)["id"], "gpus": gpus}
    shift |= {"from_role": from_role, "to_role": to_role}
    if other is not None:
        shift["to_deployment"] = names.deployment(client, other)["id"]
    proposal = Proposal("changes", {"shifts": [shift]})
    if dry_run:
        _only_say(session, proposal)
        return
    _make(session, proposal, Wish(reason, force, yes, wait, timeout_s))


@click.command()
@click.argument("change", type=click.IntRange(min=1), required=False, shell_complete=moves.complete_mine)
@dry_run_option
@reason_option
@force_option
@yes_option
@wait_options
@json_option
@pass_session
def undo(
    session: Session,
    *,
    change: int | None,
    dry_run: bool,
    reason: str,
    force: bool,
    yes: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Make the opposite of CHANGE, by default of the last one of yours that can be undone."""
    number = _last_of_mine(session) if change is None else change
    proposal = Proposal(f"changes/{number}/undo")
    if dry_run:
        _only_say(session, proposal)
        return
    if change is None:
        session.say(f"Undoing change {number}.")
    _make(session, proposal, Wish(reason, force, yes, wait, timeout_s))


@click.command()
@click.argument("change", type=click.IntRange(min=1), required=False, shell_complete=moves.complete_mine)
@click.option("-w", "--watch", is_flag=True, help="Follow CHANGE to its end.")
@click.option("--open", "only_open", is_flag=True, help="Only those that run or have stopped.")
@click.option("--actor", help="Only this person's.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), default=900.0, help="Seconds to watch at most.")
@json_option
@pass_session
def changes(
    session: Session,
    *,
    change: int | None,
    watch: bool,
    only_open: bool,
    actor: str | None,
    limit: int,
    timeout_s: float,
) -> None:
    """Changes, newest first; or one with its steps."""
    if change is None:
        if watch:
            raise failure(Exit.USAGE, "Which change shall be watched?", "Say its number: forebay changes 7 --watch")
        asked = {"actor": actor, "open": "true" if only_open else None}
        rows = session.client.every("changes", limit, **{key: value for key, value in asked.items() if value})
        session.answer(rows, lambda: change_words.table(rows))
        return
    row = session.client.get(f"changes/{change}")
    if watch and row["state"] == "running":
        row, _ = follow(session, row, timeout_s=timeout_s, since=time.monotonic())
    session.answer(row, lambda: change_words.detailed(row))


@click.command()
@change_argument
@reason_option
@wait_options
@json_option
@pass_session
def resume(session: Session, *, change: int, reason: str, wait: bool, timeout_s: float) -> None:
    """Go on with a CHANGE that stopped, in the direction that it had."""
    _lead(session, change, "resume", reason=reason, wait=wait, timeout_s=timeout_s)


@click.command()
@change_argument
@reason_option
@wait_options
@json_option
@pass_session
def rollback(session: Session, *, change: int, reason: str, wait: bool, timeout_s: float) -> None:
    """Lead a CHANGE that runs or has stopped back to what was before, one safe step at a time."""
    _lead(session, change, "rollback", reason=reason, wait=wait, timeout_s=timeout_s)


def _make(session: Session, proposal: Proposal, wish: Wish) -> None:
    answer(session, carry_out(session, proposal, wish, ask=always), wish)


def _only_say(session: Session, proposal: Proposal) -> None:
    seen = proposal.preview(session)
    session.answer(seen, lambda: explained(seen))
    if seen["problems"]:
        raise click.exceptions.Exit(Exit.REFUSED)


def _lead(session: Session, number: int, verb: str, *, reason: str, wait: bool, timeout_s: float) -> None:
    since = time.monotonic()
    row = session.client.post(f"changes/{number}/{verb}", {"reason": reason})
    seconds = None
    if wait:
        row, seconds = follow(session, row, timeout_s=timeout_s, since=since)
    told = "goes on" if verb == "resume" else "is led back"
    if seconds is not None:
        told = f"is {row['state'].replace('_', ' ')} after {seconds:.1f} s"
    session.answer({"change": row, "waited": wait, "seconds": seconds}, lambda: f"Change {number} {told}.")


def _last_of_mine(session: Session) -> int:
    """What was itself an undo is left out: who says undo twice goes back twice."""
    me = session.client.get("me")["username"]
    for row in session.client.every("changes", 100, actor=me, undoable="true"):
        if row["kind"] != "undo":
            return int(row["id"])
    message = "There is no change of yours that can be undone."
    raise failure(Exit.REFUSED, message, "See: forebay changes. Say whose: forebay undo CHANGE")


def _save(file: Path, session: Session, seen: Row) -> None:
    kept = {
        "server": session.client.url,
        "version": seen["version"],
        "words": [moves.text(row) for row in seen["moves"]],
        "moves": [moves.wire(row) for row in seen["moves"]],
    }
    try:
        file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise failure(Exit.USAGE, f"{file} cannot be written: {error.strerror}.", "Nothing was changed.") from error


def _kept(file: Path, session: Session) -> Proposal:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        version, rows, server = int(kept["version"]), list(kept["moves"]), str(kept["server"])
    except OSError as error:
        message = f"{file} is neither a move nor a file that can be read: {error.strerror}."
        raise failure(Exit.USAGE, message, moves.SAY) from error
    except (ValueError, TypeError, KeyError) as error:
        raise failure(Exit.USAGE, f"{file} is no plan.", "Make one with: forebay plan MOVE... --save FILE") from error
    if server != session.client.url:
        message = f"This plan was made at {server}, and you are signed in at {session.client.url}."
        raise failure(Exit.USAGE, message, "Plan again there.")
    return Proposal("changes", {"moves": rows}, version)
