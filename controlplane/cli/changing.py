"""A change from its preview to its end: what would happen, whether to go on, the change, the wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controlplane.cli import moves
from controlplane.cli.client import Row
from controlplane.cli.explaining import explained
from controlplane.cli.failures import Exit, Failure, Problem
from controlplane.cli.following import follow
from controlplane.cli.session import Session
from controlplane.cli.text import moment, plain

ENDING = {"replace", "stop"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for, and how."""

    reason: str
    force: bool
    yes: bool
    wait: bool
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to preview and apply: an address of the API, and what to send there. `version`: of a plan made earlier."""

    path: str
    body: Row = field(default_factory=dict)
    version: int | None = None

    def preview(self, session: Session) -> Row:
        return session.client.post(self.path, self.body, dry_run="true")

    def agreed(self, seen: Row) -> Row:
        """What to send so that exactly what was seen is done."""
        body = {"moves": [moves.wire(row) for row in seen["moves"]]} if self.path == "changes" else self.body
        return {**body, "version": seen["version"] if self.version is None else self.version}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`change` is None where everything was so already. `seconds`: from sending it to seeing its end."""

    seen: Row
    change: Row | None
    forced: bool
    since: float
    seconds: float | None = None

    def shown(self, wish: Wish) -> Row:
        waited = wish.wait and self.change is not None
        return {"change": self.change, "forced": self.forced, "waited": waited, "seconds": self.seconds}


def carry_out(session: Session, proposal: Proposal, wish: Wish, *, ask: Callable[[Row], bool]) -> Outcome:
    """Preview, ask where `ask` says so, apply, wait. A plan that has become stale is shown anew, where somebody is
    there to look at it."""
    seen = proposal.preview(session)
    forced = _require_lawful(seen, wish)
    slots = any(row["code"] == "pool" for row in seen["warnings"])
    if not slots and all(row["action"] == "none" for row in seen["moves"]):
        return Outcome(seen, None, False, time.monotonic())
    if ask(seen):
        session.say(explained(seen))
        session.confirm(_question(seen), yes=wish.yes)
    since = time.monotonic()
    try:
        change = session.client.post(proposal.path, {**proposal.agreed(seen), "reason": wish.reason, "force": forced})
    except Failure as error:
        if not (error.changes and not wish.yes and _plan_again(session, error)):
            raise
        return carry_out(session, Proposal(proposal.path, proposal.body), wish, ask=lambda _: True)
    if not wish.wait:
        return Outcome(seen, change, forced, since)
    change, seconds = follow(session, change, timeout_s=wish.timeout_s, since=since)
    return Outcome(seen, change, forced, since, seconds)


def ends_an_engine(seen: Row) -> bool:
    """Or leaves somebody short: then a person is asked also about a single move."""
    ends = any(row["action"] in ENDING for row in seen["moves"])
    return bool(ends or seen["warnings"] or seen["recycles"])


def always(seen: Row) -> bool:
    return True


def answer(session: Session, outcome: Outcome, wish: Wish, **more: Any) -> None:
    """The result of apply, move and undo."""
    session.answer({**more, **outcome.shown(wish)}, lambda: plain(_told(outcome)))


def _require_lawful(seen: Row, wish: Wish) -> bool:
    """Whether the change has to be forced. Refused where it can't be, or was not said to be."""
    problems = [Problem(row["message"], row["fix"], row["forceable"]) for row in seen["problems"]]
    if problems and not (wish.force and seen["forceable"]):
        raise Failure(Exit.REFUSED, problems)
    return bool(problems)


def _question(seen: Row) -> str:
    changed = [row["partition"]["name"] for row in seen["moves"] if row["action"] != "none"]
    return f"{', '.join(changed)} {'changes' if len(changed) == 1 else 'change'}."


def _plan_again(session: Session, error: Failure) -> bool:
    for row in error.changes:
        why = f": {row['reason']}" if row["reason"] else ""
        session.say(plain(f"{row['actor']} did {row['verb']} {row['subject']} at {moment(row['at'])} UTC{why}"))
    return session.ask("Your plan was made before that; nothing was changed. Plan again?")


def _told(outcome: Outcome) -> str:
    if outcome.change is None:
        return "Everything is so already."
    number, names_ = outcome.change["id"], ", ".join(moves.text(row) for row in outcome.change["moves"])
    if outcome.seconds is None:
        return f"Change {number} began: {names_}. Follow it with: forebay changes {number} --watch"
    return f"Change {number} is done after {outcome.seconds:.1f} s: {names_}. Take it back with: forebay undo {number}"
