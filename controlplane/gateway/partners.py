"""Which engines are tried with which: prefill with decode, so many at first, the rest when nothing presses."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.domain.verification import Standing
from controlplane.gateway.trials import Seat, Way

OPPOSITE = {"prefill": "decode", "decode": "prefill"}


def plan(seats: list[Seat], most: int) -> None:
    """What each has to pass: with a bounded number of partners; alone where it has none."""
    by_role = {role: _eligible([seat for seat in seats if seat.role == role], most) for role in OPPOSITE}
    for turn, seat in enumerate(seats):
        if seat.admitted and seat.passed:
            seat.ways = ()
            continue
        partners = _some(by_role[OPPOSITE[seat.role]], most, turn) if seat.role in OPPOSITE else []
        together = tuple((seat, one) if seat.role == "prefill" else (one, seat) for one in partners)
        seat.ways = together or ((seat,),)


def pairs(seats: list[Seat]) -> Iterator[Way]:
    decodes = [seat for seat in seats if seat.role == "decode"]
    return ((prefill, decode) for prefill in seats if prefill.role == "prefill" for decode in decodes)


def partner(seat: Seat, way: Way) -> Seat:
    return way[-1] if way[0] is seat else way[0]


def can_judge(seat: Seat) -> bool:
    return seat.admitted and seat.standing is not Standing.BAD


def _eligible(seats: list[Seat], most: int) -> list[Seat]:
    """Where there are more than can be tried: of those that serve, if they are enough."""
    serving = [seat for seat in seats if can_judge(seat)] if len(seats) > most else []
    return serving if len(serving) >= most else seats


def _some(partners: list[Seat], most: int, turn: int) -> list[Seat]:
    """At most so many. Which of them depends on whose turn it is, so that together they are all tried."""
    if len(partners) <= most:
        return partners
    return [partners[(turn * most + k) % len(partners)] for k in range(most)]
