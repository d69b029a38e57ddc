"""Follow a change to its end, telling each step."""

from __future__ import annotations

import time
from datetime import datetime

from controlplane.cli.client import Row, retried
from controlplane.cli.failures import Exit, Failure, failure
from controlplane.cli.session import Session
from controlplane.cli.text import span
from controlplane.cli.waiting import QUICK_S, Progress

FINAL = {"done", "rolled_back"}


def follow(session: Session, change: Row, *, timeout_s: float, since: float) -> tuple[Row, float]:
    """The change at its end, and the seconds from `since` until that was seen. Raises Failure where it stops, or was
    turned back by somebody meanwhile. A server that is away for a moment is waited for as well; however short the time
    is, it is looked once."""
    progress, told, wanted = Progress(session), _Told(session), bool(change["backwards"])
    found: Row | Failure = change
    has_looked = False
    try:
        while True:
            seconds = time.monotonic() - since
            if not isinstance(found, Failure):
                progress.end()
                told.steps(found)
                if found["state"] in FINAL or found["state"] == "stopped":
                    return _ended(found, wanted), round(seconds, 2)
            if seconds >= timeout_s and has_looked:
                raise _out_of_time(change, found, timeout_s)
            progress.show(_now(found), seconds, key=_key(found))
            time.sleep(session.pace / 4 if seconds < QUICK_S else session.pace)
            found, has_looked = retried(lambda: session.client.get(f"changes/{change['id']}")), True
    finally:
        progress.end()


class _Told:
    """One line for each step that has ended."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._said: set[tuple[int, bool, str]] = set()

    def steps(self, change: Row) -> None:
        if len(change["steps"]) < 2:
            return  # the answer says all
        for step in change["steps"]:
            key = (step["partition"], step["back"], step["began_at"] or "")
            if step["ended_at"] is None or key in self._said:
                continue
            self._said.add(key)
            self._session.say(f"{step['number']}/{len(change['steps'])} {step['name']}: {_end(step)}")


def _end(step: Row) -> str:
    took = datetime.fromisoformat(step["ended_at"]) - datetime.fromisoformat(step["began_at"])
    if step["state"] == "failed":
        return f"failed after {span(took.total_seconds())}. {step['message']}".rstrip()
    return f"{step['action']}, confirmed after {span(took.total_seconds())}"


def _ended(change: Row, wanted_back: bool) -> Row:
    number = change["id"]
    if change["state"] == "stopped":
        fix = f"The fleet serves on as it is. Run: forebay resume {number}, or: forebay rollback {number}"
        raise failure(Exit.NOT_REACHED, f"Change {number} stopped. {change['message']}".rstrip(), fix)
    if bool(change["backwards"]) is not wanted_back:
        raise failure(Exit.CONFLICT, f"Somebody rolled change {number} back meanwhile.", "See: forebay audit")
    return change


def _now(found: Row | Failure) -> str:
    if isinstance(found, Failure):
        return "the server does not answer"
    step = _running(found)
    if step is None:
        return f"change {found['id']}: {found['message'] or 'waits for its next step'}"
    place = f"{step['number']}/{len(found['steps'])} " if len(found["steps"]) > 1 else ""
    return f"{place}{step['name']}: {step['progress'] or step['action']}"


def _key(found: Row | Failure) -> str:
    """Without the seconds in it, which are another at each look."""
    step = None if isinstance(found, Failure) else _running(found)
    if isinstance(found, Failure) or step is None:
        return _now(found)
    return f"{step['number']} {step['progress'].split(',')[0].split(' for ')[0]}"


def _running(change: Row) -> Row | None:
    return next((step for step in change["steps"] if step["state"] == "running"), None)


def _out_of_time(change: Row, found: Row | Failure, timeout_s: float) -> Failure:
    if isinstance(found, Failure):
        return found
    number = change["id"]
    fix = f"The change goes on by itself. Wait on with: forebay changes {number} --watch"
    return failure(Exit.NOT_REACHED, f"After {span(timeout_s)} change {number} still runs: {_now(found)}.", fix)
