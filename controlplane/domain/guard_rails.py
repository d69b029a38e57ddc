"""What keeps a plan from being applied without a person. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from controlplane.domain import holding
from controlplane.domain.holding import Floor


@dataclass(frozen=True, slots=True)
class Rails:
    """`quiet`: hours as holding.Floor has them, whose slots mean nothing. None: no such bound."""

    auto_apply: bool
    moves_per_hour: int
    quiet: Sequence[Floor]
    zone: tzinfo
    most_gpus: int | None = None
    price_per_hour: float | None = None
    auto_switch: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a plan and of the time before it. `gpus`, `price`: of all dedicated engines once it is done; `price` None: not
    of every node one is known. `grows`: it takes more GPUs than it frees. `switches`: from
    aggregated engines to disaggregated ones, or back."""

    moves: int
    moves_last_hour: int
    gpus: int
    price: float | None
    grows: bool
    problems: int
    brake: str = ""
    open_changes: Sequence[int] = ()
    since_undone_s: float | None = None
    switches: bool = False


UNDONE_S = 3600.0  # after somebody undid what was applied by itself, nothing is for an hour


def held_back(rails: Rails, facts: Facts, now: datetime) -> list[str]:
    """Why a person has to say yes, in words; empty where nobody has to."""
    return list(_reasons(rails, facts, now))


def _reasons(rails: Rails, facts: Facts, now: datetime) -> Iterable[str]:
    if not rails.auto_apply:
        yield "plans are applied by people: automatic applying is off"
    if facts.switches and not rails.auto_switch:
        yield "people switch between aggregated and disaggregated engines: the policy does not permit it automatically"
    if facts.brake:
        yield facts.brake
    if facts.problems:
        yield f"{facts.problems} problems stand against it"
    if facts.open_changes:
        yield f"change {facts.open_changes[0]} is under way"
    if (quiet := holding.floor_at(rails.quiet, rails.zone, now)) is not None:
        yield f"quiet hours, {quiet.hours}"
    if facts.moves + facts.moves_last_hour > rails.moves_per_hour:
        yield f"{facts.moves} moves and {facts.moves_last_hour} of the last hour are more than {rails.moves_per_hour}"
    if facts.grows and rails.most_gpus is not None and facts.gpus > rails.most_gpus:
        yield f"{facts.gpus} GPUs for dedicated engines would be more than {rails.most_gpus}"
    if facts.grows and rails.price_per_hour is not None:
        if facts.price is None:
            yield "what it would cost is not known: a node has no price"
        elif facts.price > rails.price_per_hour:
            yield f"{facts.price:.2f} an hour would be more than {rails.price_per_hour:.2f}"
    if facts.since_undone_s is not None and facts.since_undone_s < UNDONE_S:
        yield f"somebody undid an automatic plan {facts.since_undone_s / 60:.0f} min ago"
