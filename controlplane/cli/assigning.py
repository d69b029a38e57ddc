"""One assignment from preview to confirmed: what would happen, whether to go on, the change, the wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.cli import names
from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, Failure, Problem, failure
from controlplane.cli.session import Session
from controlplane.cli.text import plain, size, span
from controlplane.cli.waiting import wait

_DOES = {
    "none": "It is so already.",
    "start": "No engine runs there now: one starts.",
    "relabel": "The engine stays; only what is sent to it changes.",
    "replace": "Its engine ends once its requests have ended, then a new one starts.",
}
_TAKES = {
    "none": "",
    "start": "Its engines usually take {} to get ready.",
    "relabel": "It takes about {}.",
    "replace": "It takes {} at the longest, draining included, if the new engine starts as they usually do.",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for, and how."""

    reason: str
    force: bool
    yes: bool
    wait: bool
    timeout_s: float


def preview(session: Session, partition: Row, deployment: Row, role: str) -> Row:
    body = {"deployment": deployment["id"], "role": role}
    return session.client.post(f"partitions/{partition['id']}/assign", body, dry_run="true")


def carry_out(session: Session, partition: Row, deployment: Row, role: str, wish: Wish) -> None:
    """Assign, wait and answer; `forebay assign` and `forebay flip` are this."""
    name = names.label(partition)
    seen = preview(session, partition, deployment, role)
    problems = [Problem(row["message"], row["fix"], row["forceable"]) for row in seen["problems"]]
    if problems and not (wish.force and seen["forceable"]):
        raise Failure(Exit.REFUSED, problems)
    if seen["action"] == "replace" or seen["warnings"]:
        session.say(explained(name, seen))
        session.confirm(f"{name} changes.", yes=wish.yes)
    body = {"deployment": deployment["id"], "role": role, "reason": wish.reason}
    body |= {"force": bool(problems), "expected_generation": seen["generation"]}
    since = time.monotonic()
    row = session.client.post(f"partitions/{partition['id']}/assign", body)
    seconds = None
    if wish.wait:
        ready = confirmed(name, deployment["name"], role)
        row, seconds = wait(session, name, reader(session, partition), ready, timeout_s=wish.timeout_s, since=since)
    shown = {"partition": row, "before": seen["before"], "after": seen["after"], "action": seen["action"]}
    shown |= {"forced": bool(problems), "waited": wish.wait, "seconds": seconds}
    session.answer(shown, lambda: _told(name, shown))


def reader(session: Session, partition: Row) -> Callable[[], Row]:
    return lambda: session.client.get(f"partitions/{partition['id']}")


def confirmed(name: str, deployment: str, role: str) -> Callable[[Row], bool]:
    """The agent says ready, of exactly this. Raises where that will not come by waiting."""

    def done(row: Row) -> bool:
        now = (row["deployment"] and row["deployment"]["name"], row["role"])
        if now != (deployment, role):
            what = f"{now[0]} as {now[1]}" if now[0] else "unassigned"
            raise failure(Exit.CONFLICT, f"Somebody changed {name} meanwhile: it is now {what}.", "See: forebay audit")
        if row["status"] == "crash_looping":
            text = f"{name} is crash-looping: its engine failed {row['restarts']} times in a row. {row['message']}"
            raise failure(Exit.NOT_REACHED, text.strip(), f"Read its log: forebay logs {name}")
        return bool(row["confirmed"] and row["status"] == "ready")

    return done


def explained(name: str, seen: Row) -> str:
    """A preview in lines."""
    lines = [f"{name}: {_what(seen['before'])} -> {_what(seen['after'])}", _DOES[seen["action"]]]
    if seen.get("expected_s") is not None:
        lines.append(_TAKES[seen["action"]].format(span(seen["expected_s"])))
    if seen["fit"]:
        lines.append(_memory(seen["fit"]))
    lines += [_line("Mind", row) for row in seen["warnings"]]
    lines += [
        _line("Against it (--force overrides)" if row["forceable"] else "Against it", row) for row in seen["problems"]
    ]
    return "\n".join(plain(line) for line in lines)


def _what(assignment: Row) -> str:
    return f"{assignment['deployment']} as {assignment['role']}" if assignment["deployment"] else "unassigned"


def _memory(fit: Row) -> str:
    if fit["fits"] is None:
        return f"Memory: not checked. {fit['note']}".rstrip()
    parts = ", ".join(f"{part} {size(fit[f'{part}_bytes'])}" for part in ("weights", "kv", "overhead"))
    verdict = "fits" if fit["fits"] else "does not fit"
    return (
        f"Memory of one GPU: {verdict}, needs {size(fit['needed_bytes'])} of {size(fit['available_bytes'])} ({parts}). "
        f"{fit['note']}"
    ).rstrip()


def _line(title: str, row: Row) -> str:
    return f"{title}: {row['message']} {row['fix']}".rstrip()


def _told(name: str, shown: Row) -> str:
    after = _what(shown["after"])
    if shown["waited"]:
        return f"{name} runs {after}: confirmed after {shown['seconds']:.1f} s ({shown['action']})."
    return f"{name} shall run {after} ({shown['action']}). Follow it with: forebay partitions"
