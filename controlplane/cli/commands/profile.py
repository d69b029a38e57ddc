"""Profiles of engines: what one was measured to do on which GPUs."""

from __future__ import annotations

import gzip
import time
from collections.abc import Sequence
from pathlib import Path

import click

from controlplane.cli import names
from controlplane.cli.client import Row, retried
from controlplane.cli.failures import Exit, Failure, failure
from controlplane.cli.options import dry_run_option, force_option, json_option, reason_option, wait_options, yes_option
from controlplane.cli.session import Session, pass_session
from controlplane.cli.text import UNKNOWN, counted, figure, moment, share, table
from controlplane.cli.waiting import Progress

MOST_BYTES = 900_000  # of a table: with the rest of the request it must stay below the server's limit


@click.group()
def profile() -> None:
    """What engines were measured to do: their speed by load, and the smallest batch that fills the GPU."""


@profile.command("list")
@click.option("--model", help="Only of this model.")
@json_option
@pass_session
def list_(session: Session, model: str | None) -> None:
    """All profiles, the newest first."""
    rows = session.client.every("profiles", None, **({"model": model} if model else {}))
    session.answer(rows, lambda: _table(rows) if rows else "There are none: forebay profile import TABLE.")


@profile.command()
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@json_option
@pass_session
def show(session: Session, number: int) -> None:
    """One profile: laws, knee, and each point beside what the law says."""
    found = session.client.get(f"profiles/{number}")
    session.answer(found, lambda: _shown(found))


@profile.command()
@click.argument("deployment", shell_complete=names.complete_deployment)
@click.option("--partition", metavar="NODE/PARTITION", help="Which engine. Default: the first that is ready.")
@reason_option
@force_option
@wait_options
@json_option
@pass_session
def run(
    session: Session, *, deployment: str, partition: str | None, reason: str, force: bool, wait: bool, timeout_s: float
) -> None:
    """Measure a running engine of DEPLOYMENT, for minutes, and keep its profile.

    Prompts and batches of rising size for prefill, more and more sequences for decode. Refused while the deployment
    serves requests: they would be slowed, and would falsify what is measured. Interrupted, it goes on by itself; call
    it off with: forebay profile cancel.
    """
    since = time.monotonic()
    body: Row = {"deployment": names.deployment(session.client, deployment)["id"], "force": force, "reason": reason}
    if partition is not None:
        body["partition"] = names.partition(session.client, partition)["id"]
    made = session.client.post("profile-runs", body)
    if not wait:
        session.answer(made, lambda: f"Measuring {made['id']} of {made['partition']} is to be begun.")
        return
    number = made["profile"] if made["state"] == "done" else _followed(session, made, timeout_s, since)
    found = session.client.get(f"profiles/{number}")
    session.answer(found, lambda: f"Profile {number}\n{_shown(found)}")


@profile.command()
@click.argument("number", metavar="MEASURING", type=click.IntRange(min=1))
@reason_option
@json_option
@pass_session
def cancel(session: Session, *, number: int, reason: str) -> None:
    """Call a measuring off."""
    found = session.client.post(f"profile-runs/{number}/cancel", {"reason": reason})
    session.answer(found, lambda: f"Measuring {number} of {found['partition']}: {found['state']}.")


@profile.command()
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@click.argument("deployment", shell_complete=names.complete_deployment)
@dry_run_option
@reason_option
@force_option
@yes_option
@json_option
@pass_session
def apply(
    session: Session, *, number: int, deployment: str, dry_run: bool, reason: str, force: bool, yes: bool
) -> None:
    """Have DEPLOYMENT's engines take the smallest batch that fills the GPU, by a profile.

    Sets --max-num-batched-tokens: of its prefill engines where it has any of their own, else of all. A larger batch
    makes prompts wait for one another and is no faster. Engines that run start again, which needs --force.
    """
    path, row = f"profiles/{number}/apply", names.deployment(session.client, deployment)
    body: Row = {"deployment": row["id"], "force": force, "reason": reason}
    would = session.client.post(path, body, dry_run="true")
    if dry_run:
        session.answer(would, lambda: _applied(would))
        return
    if would["engines"] and force:
        engines = (
            f"{counted(would['engines'], 'engine')} of {deployment} {'is' if would['engines'] == 1 else 'are'} replaced"
        )
        question = f"{engines}, to take {would['tokens']} tokens a step."
        session.confirm(question, yes=yes)
    done = session.client.post(path, body)
    session.answer(done, lambda: _applied(done))


def _applied(said: Row) -> str:
    same = " (as it is already)" if said["before"] == said["after"] else ""
    lines = [f"{said['deployment']['name']}: {said['column']} {' '.join(said['after'])}{same}"]
    return "\n".join([*lines, *(f"{note[0].upper()}{note[1:]}." for note in said["notes"])])


@profile.command("import")
@click.argument("file", metavar="TABLE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", "models", multiple=True, metavar="OLD=NEW", help="What the fleet calls a model of the table.")
@click.option("--gpu", "gpus", multiple=True, metavar="OLD=NEW", help="What agents call a GPU of the table.")
@reason_option
@json_option
@pass_session
def import_(session: Session, *, file: Path, models: Sequence[str], gpus: Sequence[str], reason: str) -> None:
    """Keep a profile of each engine in TABLE: Splitwise's CSV or AIConfigurator's, gzipped or not."""
    body = {"table": _read(file), "name": file.name, "models": _renames(models), "gpus": _renames(gpus)}
    made = session.client.post("profiles", {**body, "reason": reason})
    session.answer(made, lambda: _imported(made))


@profile.command()
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@json_option
@pass_session
def delete(session: Session, number: int) -> None:
    """Forget a profile."""
    session.client.delete(f"profiles/{number}")
    session.answer({"id": number, "deleted": True}, lambda: f"Profile {number} is forgotten.")


def _followed(session: Session, made: Row, timeout_s: float, since: float) -> int:
    """The profile's number, once it is there."""
    progress = Progress(session)
    found: Row | Failure = made
    try:
        while True:
            if not isinstance(found, Failure) and found["state"] not in ("wanted", "running"):
                return _ended(found)
            seconds = time.monotonic() - since
            if seconds >= timeout_s:
                fix = f"It goes on by itself. Look at GET profile-runs/{made['id']}, or: forebay profile list"
                raise failure(Exit.NOT_REACHED, f"After {seconds:.0f} s measuring {made['id']} is not done.", fix)
            progress.show(_far(found), seconds)
            time.sleep(session.pace)
            found = retried(lambda: session.client.get(f"profile-runs/{made['id']}"))
    finally:
        progress.end()


def _ended(run: Row) -> int:
    if run["state"] == "done" and run["profile"] is not None:
        return int(run["profile"])
    why = run["message"] or "Its profile was deleted, or it was called off."
    raise failure(Exit.NOT_REACHED, f"Measuring {run['id']} of {run['partition']} is {run['state']}. {why}", "")


def _far(found: Row | Failure) -> str:
    if isinstance(found, Failure):
        return "the server does not answer"
    if found["state"] == "wanted":
        return f"{found['partition']}: waits to be begun"
    return f"{found['partition']}: {found['done']}/{found['steps'] or '?'} {found['message']}"


def _read(file: Path) -> str:
    try:
        raw = file.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(file) as packed:
                raw = packed.read(MOST_BYTES + 1)
        text = raw.decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise failure(Exit.USAGE, f"{file} cannot be read: {error}.") from error
    if len(raw) > MOST_BYTES:
        raise failure(Exit.USAGE, f"{file} is larger than {MOST_BYTES} bytes.", "Split it by model or GPU.")
    return text


def _renames(words: Sequence[str]) -> dict[str, str]:
    found = dict[str, str]()
    for word in words:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise failure(Exit.USAGE, f"{word!r} does not say what is to be called what.", "Write OLD=NEW.")
        found[old] = new
    return found


def _imported(made: Row) -> str:
    parts = [_table(made["profiles"])]
    notes = list(dict.fromkeys(note for row in made["profiles"] for note in row["notes"]))
    parts += [f"Left out: {line}" for line in made["left_out"]] + [f"{note[0].upper()}{note[1:]}." for note in notes]
    if made["replaced"]:
        parts.append(f"{made['replaced']} of an earlier import were replaced.")
    return "\n".join(parts)


def _table(rows: list[Row]) -> str:
    headers = ["ID", "MODEL", "GPU", "TP", "KNEE", "TOK/S", "OFF BY", "SOURCE", "MADE"]
    return table(headers, [_cells(row) for row in rows], right=(0, 3, 4, 5, 6))


def _cells(row: Row) -> list[str]:
    knee: Row = row["knee"] or {}
    off = None if row["prefill"] is None else max(row["prefill"]["mean_error"], row["decode"]["mean_error"])
    return [
        str(row["id"]), row["model"], row["gpu"], str(row["tp"]), figure(knee.get("tokens")),
        figure(knee.get("plateau_tokens_per_s")), share(off), row["source"], moment(row["created_at"]),
    ]  # fmt: skip


def _shown(row: Row) -> str:
    head = f"{row['model']} on {row['tp']} x {row['gpu']}, {row['source']} from {row['origin'] or UNKNOWN}"
    engine = ", ".join(filter(None, [row["engine_version"], " ".join(row["flags"])])) or "engine not named"
    parts = [f"{head}\n{engine}", *(f"{note[0].upper()}{note[1:]}." for note in row["notes"])]
    if row["problem"]:
        return "\n\n".join([*parts, f"No law: {row['problem']}."])
    return "\n\n".join([*parts, _knee(row["knee"]), *_prefill(row["prefill"]), *_decode(row["decode"])])


def _knee(knee: Row) -> str:
    how = "read off the points" if knee["measured"] else "by the law: too few sizes for more"
    reached = f"{knee['fraction']:.0%} of {knee['plateau_tokens_per_s']:,.0f} tokens/s"
    return f"The smallest batch that fills it: {knee['tokens']} tokens ({reached}; {how})."


def _prefill(law: Row) -> list[str]:
    line = f"{law['a']:.3g} + {law['b']:.3g} n + {law['c']:.3g} n L"
    rows = [
        [str(p["tokens"]), str(p["batch"]), f"{p['step_ms']:.1f}", f"{p['law_ms']:.1f}", _off(p)] for p in law["points"]
    ]
    return [
        f"Prefill of n tokens, prompts of L: max({law['floor_ms']:.3g}, {line}) ms; {_errors(law)}.",
        table(["TOKENS", "PROMPTS", "MS", "LAW", "OFF"], rows, right=(0, 1, 2, 3, 4)),
    ]


def _decode(law: Row) -> list[str]:
    line = f"{law['o']:.3g} + {law['u']:.3g} B + {law['v']:.3g} B ctx"
    rows = [
        [str(p["concurrency"]), str(p["context"]), f"{p['itl_ms']:.2f}", f"{p['law_ms']:.2f}", _off(p)]
        for p in law["points"]
    ]
    return [
        f"Decode of B sequences with ctx tokens: {line} ms a token; {_errors(law)}.",
        table(["SEQUENCES", "CONTEXT", "MS", "LAW", "OFF"], rows, right=(0, 1, 2, 3, 4)),
    ]


def _errors(law: Row) -> str:
    return f"off by {law['mean_error']:.1%}, at worst {law['worst_error']:.1%}"


def _off(point: Row) -> str:
    return "left out" if point["left_out"] else f"{point['error']:+.1%}"
