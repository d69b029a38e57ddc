"""A draft of a change as the address carries it, `?move=12:3:prefill&move=14:idle`: a link opens the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from django.http import QueryDict

from controlplane.domain.rollout import Move
from workers.contract import Role

MOST = 200  # moves; an address has an end
IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Draft:
    """At most one move a partition; of several the last counts. `unread` is what looked like a move and is none."""

    moves: tuple[Move, ...] = ()
    unread: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.moves)

    @property
    def words(self) -> list[str]:
        return [word(move) for move in self.moves]

    @property
    def query(self) -> str:
        return urlencode([("move", text) for text in self.words], safe=":")

    def plus(self, moves: Sequence[Move]) -> Draft:
        return replace(self, moves=_last_of_each([*self.moves, *moves])[:MOST])

    def without(self, partition: int) -> Draft:
        return replace(self, moves=tuple(move for move in self.moves if move.partition != partition))


def read(values: QueryDict) -> Draft:
    found: list[Move] = []
    unread: list[str] = []
    for text in values.getlist("move")[:MOST]:
        move = _move(text)
        if move is None:
            unread.append(text[:40])
        else:
            found.append(move)
    return Draft(_last_of_each(found), tuple(unread))


def word(move: Move) -> str:
    if move.deployment is None or move.role is None:
        return f"{move.partition}:{IDLE}"
    return f"{move.partition}:{move.deployment}:{move.role.value}"


def _move(text: str) -> Move | None:
    parts = text.split(":")
    if not all(_is_key(part) for part in parts[:-1]) or not text.isascii():
        return None
    if len(parts) == 2 and parts[1] == IDLE:
        return Move(int(parts[0]), None, None)
    if len(parts) == 3 and parts[2] in set(Role):
        return Move(int(parts[0]), int(parts[1]), Role(parts[2]))
    return None


def _is_key(text: str) -> bool:
    return text.isdecimal() and len(text) <= 18


def _last_of_each(moves: Sequence[Move]) -> tuple[Move, ...]:
    return tuple({move.partition: move for move in moves}.values())
