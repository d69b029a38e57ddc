"""Typed commands of the palette: what a sentence means, as pages that show what would happen. Nothing acts from here.

flip node-3/p1 to prefill            assign node-3/p1 node-3/p2 to llama decode       release node-3/p1
move 2 gpus of llama from decode to prefill                                            cordon node-7
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from controlplane.domain.rollout import Move
from workers.contract import Role

T = TypeVar("T")
MOST = 12  # offers for a sentence that is not finished
_FLIP = re.compile(r"flip\s+(?P<what>\S.*?)(?:\s+to\s+(?P<role>\S*))?$")
_ASSIGN = re.compile(r"(?:assign|move)\s+(?P<what>\S.*?)\s+to\s+(?P<where>.*)$")
_RELEASE = re.compile(r"release\s+(?P<what>\S.*)$")
_SHIFT = re.compile(
    r"move\s+(?P<gpus>\d+)\s+gpus?(?:\s+of\s+(?P<name>\S+))?(?:\s+from\s+(?P<source>\S+))?(?:\s+to\s+(?P<target>\S+))?$"
)
_NODE = re.compile(r"(?P<verb>cordon|uncordon|drain)(?:\s+(?P<name>\S+))?$")
_OTHER = {Role.PREFILL: Role.DECODE, Role.DECODE: Role.PREFILL}


@dataclass(frozen=True, slots=True)
class Place:
    """A partition and what it runs."""

    pk: int
    deployment: int | None
    role: Role | None


@dataclass(frozen=True, slots=True)
class Names:
    """Everything that can be named, by its name in lower case."""

    partitions: Mapping[str, Place]
    deployments: Mapping[str, int]
    nodes: Mapping[str, int]
    spelled: Mapping[str, str] = field(default_factory=dict)  # as people wrote it, where that has capitals

    def spell(self, name: str) -> str:
        return self.spelled.get(name, name)


@dataclass(frozen=True, slots=True)
class Planned:
    """A draft for the board."""

    label: str
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Shifted:
    """So many GPUs of a deployment from one role to the other."""

    label: str
    deployment: int
    source: Role
    target: Role
    gpus: int


@dataclass(frozen=True, slots=True)
class Intended:
    """What is decided about a node, on its page."""

    label: str
    verb: str
    node: int


Offer = Planned | Shifted | Intended


def offers(sentence: str, names: Names) -> list[Offer]:
    """What the sentence means, or what it could become when its last word is not finished."""
    text = " ".join(sentence.lower().split())
    for pattern, read in _GRAMMAR:
        if found := pattern.match(text):
            return list(read(found, names))[:MOST]
    return []


def _flips(found: re.Match[str], names: Names) -> Iterator[Offer]:
    asked = found["role"] or ""
    for label, places in _named(found["what"], names):
        placed = [place for place in places if place.deployment is not None and place.role is not None]
        if len(placed) < len(places):
            continue  # it runs nothing: there is no role to flip
        usual = {_OTHER[place.role] for place in placed if place.role in _OTHER}
        roles = [role for role in Role if role.value.startswith(asked) and (asked or role in usual)]
        for role in roles:
            moves = tuple(Move(p.pk, p.deployment, role) for p in placed if p.role is not role)
            if moves:
                yield Planned(f"Flip {label} to {role.value}", moves)


def _assigns(found: re.Match[str], names: Names) -> Iterator[Offer]:
    words = [word for word in found["where"].split() if word not in {"of", "as"}]
    roles = [role for role in Role if any(role.value.startswith(word) for word in words if len(word) > 1)]
    homes = [(name, pk) for name, pk in names.deployments.items() if any(name.startswith(word) for word in words)]
    for label, places in _named(found["what"], names):
        for name, home in homes:
            for role in roles or Role:
                told = f"Assign {label} to {role.value} of {names.spell(name)}"
                yield Planned(told, tuple(Move(place.pk, home, role) for place in places))
        if not homes:
            yield from _within(label, places, roles)


def _within(label: str, places: Sequence[Place], roles: Sequence[Role]) -> Iterator[Offer]:
    if all(place.deployment is not None for place in places):
        for role in roles:
            yield Planned(f"Move {label} to {role.value}", tuple(Move(p.pk, p.deployment, role) for p in places))


def _releases(found: re.Match[str], names: Names) -> Iterator[Offer]:
    for label, places in _named(found["what"], names):
        if any(place.deployment is not None for place in places):
            yield Planned(f"Release {label}", tuple(Move(p.pk, None, None) for p in places if p.deployment is not None))


def _shifts(found: re.Match[str], names: Names) -> Iterator[Offer]:
    count = int(found["gpus"])
    for name, pk in names.deployments.items():
        if not name.startswith(found["name"] or ""):
            continue
        for source, target in _ways(found["source"] or "", found["target"] or ""):
            gpus = f"{count} GPU{'' if count == 1 else 's'} of {names.spell(name)}"
            label = f"Move {gpus} from {source.value} to {target.value}"
            yield Shifted(label, pk, source, target, count)


def _ways(source: str, target: str) -> list[tuple[Role, Role]]:
    pairs = [(a, b) for a in Role for b in Role if a is not b]
    usual = pairs if source or target else [(a, b) for a, b in pairs if _OTHER.get(a) is b]
    return [(a, b) for a, b in usual if a.value.startswith(source) and b.value.startswith(target)]


def _intents(found: re.Match[str], names: Names) -> Iterator[Offer]:
    verb = found["verb"]
    for name, pk in _starting(names.nodes, found["name"] or ""):
        yield Intended(f"{verb.capitalize()} {names.spell(name)}", verb, pk)


def _named(text: str, names: Names) -> Iterator[tuple[str, list[Place]]]:
    """All words but the last must be names; the last one may be the beginning of several."""
    *whole, last = text.replace(",", " ").split()
    if any(word not in names.partitions for word in whole):
        return
    for name, place in _starting(names.partitions, last):
        if name not in whole:
            told = " ".join(names.spell(word) for word in [*whole, name])
            yield told, [*(names.partitions[word] for word in whole), place]


def _starting(known: Mapping[str, T], beginning: str) -> list[tuple[str, T]]:
    """The exact name alone where there is one."""
    if beginning in known:
        return [(beginning, known[beginning])]
    return [(name, value) for name, value in known.items() if name.startswith(beginning)]


_GRAMMAR = (
    (_SHIFT, _shifts), (_FLIP, _flips), (_RELEASE, _releases), (_NODE, _intents), (_ASSIGN, _assigns),
)  # fmt: skip
