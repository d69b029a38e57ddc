"""From "two GPUs of llama from decode to prefill" to moves of partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain import shifting
from controlplane.domain.impact import Action, Live, Load
from controlplane.domain.rollout import Move
from controlplane.domain.shifting import Candidate
from controlplane.domain.types import Problem, Role
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.models import Deployment, Partition
from controlplane.fleet.services import checks, rows
from workers.contract import Phase


@dataclass(frozen=True, slots=True)
class Shift:
    """So many GPUs of one role of a deployment shall have another role, of `to_deployment` if given."""

    deployment: int
    from_role: Role
    to_role: Role
    gpus: int
    to_deployment: int | None = None


def choose_moves(shifts: Sequence[Shift], *, live: Live | None = None) -> list[Move]:
    """The moves that make the shifts: ready engines with the fewest requests in flight, relabels before replacements.
    Refused where the partitions do not add up to that many GPUs."""
    moves: list[Move] = []
    for shift in shifts:
        moves += _moves(shift, {move.partition for move in moves}, live or Live())
    return moves


def _moves(shift: Shift, taken: set[int], live: Live) -> list[Move]:
    source = rows.get(Deployment, shift.deployment, "model")
    goal = source if shift.to_deployment is None else rows.get(Deployment, shift.to_deployment, "model")
    if shift.gpus < 1 or (source.pk, shift.from_role) == (goal.pk, shift.to_role):
        fix = "Say how many GPUs, and another role or deployment."
        raise Invalid([Problem("shift", "This shift would change nothing.", fix)])
    own = source.partitions.filter(role=shift.from_role.value, overflow=False).exclude(pk__in=taken)
    found = list(own.select_related("node", "deployment__model").prefetch_related("gpus").order_by("pk"))
    candidates = [_candidate(row, goal, shift.to_role, live) for row in found]
    chosen = shifting.choose(candidates, shift.gpus)
    if chosen is None:
        raise Refused([_no_such_number(source, shift, candidates)])
    return [Move(partition, goal.pk, shift.to_role) for partition in chosen]


def _candidate(row: Partition, goal: Deployment, role: Role, live: Live) -> Candidate:
    in_flight = live.partitions.get(row.pk, Load()).in_flight
    is_replaced = checks.action(row, goal, role.value) is not Action.RELABEL
    rank = (float(row.phase != Phase.READY), float(is_replaced), in_flight or 0.0)
    return Candidate(row.pk, len(row.gpus.all()), rank)


def _no_such_number(source: Deployment, shift: Shift, candidates: Sequence[Candidate]) -> Problem:
    sums = shifting.possible(candidates)
    has = f"{source.name} has {sums[-1] if sums else 0} GPUs in {shift.from_role}"
    message = f"{has}, and no partitions of it with exactly {shift.gpus} together."
    fix = f"Possible: {', '.join(str(total) for total in sums[:12])}." if sums else "Assign some to it first."
    return Problem("no-such-number", message, fix)
