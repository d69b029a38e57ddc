"""What is noted of one request for its trace: ids, and the steps at engines. Pure; `tracing` makes spans of it later.

The header is W3C Trace Context, version 00: https://www.w3.org/TR/trace-context/"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from os import urandom

PREFILL, DECODE = "prefill", "decode"
SAMPLED = 1
LONGEST_STATE = 512  # of tracestate, as the standard lets one cut
_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Parent:
    """The span that the client is in."""

    trace_id: int
    span_id: int
    sampled: bool


@dataclass(slots=True)
class Step:
    """A request to one engine. Times are of the event loop's clock, in seconds; 0: not yet."""

    name: str
    engine: str
    span_id: int
    attempt: int
    began: float
    ended: float = 0.0
    error: str = ""


@dataclass(slots=True)
class Trace:
    """`parent_id` 0: the request is the root."""

    trace_id: int
    parent_id: int
    sampled: bool
    state: str = ""
    span_id: int = field(default_factory=lambda: new_id(8))
    steps: list[Step] = field(default_factory=list)

    def begin(self, name: str, engine: str, attempt: int, now: float) -> Step:
        step = Step(name, engine, new_id(8), attempt, now)
        self.steps.append(step)
        return step

    def end(self, now: float, error: str = "") -> None:
        """The step under way is over, if there is one."""
        if self.steps and not self.steps[-1].ended:
            self.steps[-1].ended, self.steps[-1].error = now, error

    def headers(self, step: Step) -> bytes:
        """For the engine, so that its spans lie within the step."""
        parent = f"traceparent: 00-{self.trace_id:032x}-{step.span_id:016x}-{self.sampled:02x}\r\n"
        return (parent + (f"tracestate: {self.state}\r\n" if self.state else "")).encode("ascii")


def new_id(size: int) -> int:
    """Never 0, which stands for none."""
    return int.from_bytes(urandom(size), "big") or 1


def parent_of(header: str) -> Parent | None:
    """What a client's traceparent says; None for one that says nothing lawful. Later versions may append fields."""
    found = _HEADER.fullmatch(header.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return Parent(trace_id, span_id, bool(int(found[4], 16) & SAMPLED)) if trace_id and span_id else None


def state_of(header: str) -> str:
    """A client's tracestate as it may be handed on, or nothing."""
    text = header.strip()
    return text if len(text) <= LONGEST_STATE and text.isascii() and text.isprintable() else ""
