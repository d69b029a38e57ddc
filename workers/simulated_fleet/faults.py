"""Faults on request: lines such as `silence sim-0003`, and what they mean for each node. Values in, values out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = {
    "silence": "NODE",
    "restart": "NODE",
    "skew": "NODE SECONDS",
    "disk-low": "NODE",
    "old-version": "NODE",
    "crash-loop": "NODE/PARTITION",
    "expire-kv": "NODE/PARTITION",
    "fail-kv": "NODE/PARTITION",
    "kv-full": "NODE/PARTITION",
    "slow-first": "NODE/PARTITION SECONDS",
    "slow-tokens": "NODE/PARTITION SECONDS",
    "throttle": "NODE/GPU",
    "lose": "NODE/GPU",
    "ecc": "NODE/GPU",
    "hot": "NODE/GPU",
    "foreign": "NODE/GPU",
}
USAGE = "; ".join(f"{kind} {subject}" for kind, subject in KINDS.items()) + "; clear [NODE[/PARTITION or /GPU]]"


class BadFault(ValueError):
    """The line is no fault; the message says what would be."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    node: str
    part: str = ""  # a partition's name or a GPU's index
    value: float = 0.0  # seconds: how far the clock is ahead, or how much longer each first or other token takes

    @property
    def subject(self) -> str:
        return f"{self.node}/{self.part}" if self.part else self.node


def parse(line: str) -> Fault:
    """Raises BadFault."""
    kind, *words = line.split()
    form = KINDS.get(kind)
    if form is None or len(words) != len(form.split()):
        raise BadFault(f"{line.strip()!r} is no fault, and nothing was changed. Write one of: {USAGE}.")
    node, slash, part = words[0].partition("/")
    if bool(slash) != ("/" in form) or (form == "NODE/GPU" and not part.isdecimal()):
        raise BadFault(f"{line.strip()!r} names no {form.split()[0]}, and nothing was changed. Write: {kind} {form}.")
    value = _seconds(words[1]) if len(words) > 1 else 0.0
    if value is None or (part and value < 0):
        raise BadFault(f"{words[1]!r} is no number of seconds. Write for example: {kind} {words[0]} 4.")
    return Fault(kind, node, part, value)


def change(in_force: frozenset[Fault], line: str, nodes: Iterable[str]) -> frozenset[Fault]:
    """What is in force after a line such as `hot sim-0001/3` or `clear sim-0001/3`. Raises BadFault."""
    kind, *words = line.split()
    if kind != "clear":
        return in_force | {known(parse(line), nodes)}
    if len(words) > 1:
        raise BadFault("clear takes one subject at most; without one it ends all faults. Nothing was changed.")
    return frozenset(f for f in in_force if words and words[0] not in (f.subject, f.node))


def known(fault: Fault, nodes: Iterable[str]) -> Fault:
    names = list(nodes)
    if fault.node not in names:
        raise BadFault(f"No node {fault.node} is played here, and nothing was changed. There are {_span(names)}.")
    return fault


def _seconds(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _span(names: list[str]) -> str:
    return f"{names[0]} to {names[-1]}" if len(names) > 1 else "".join(names) or "none"
