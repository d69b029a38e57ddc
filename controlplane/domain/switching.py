"""When a deployment is to go from engines that do both phases to engines for each, or back. Pure.

Moving every engine of a deployment costs more than it looks like, and what is compared moves with the rate: so the gain
has to be clear, to have been there for hours, and to rest on what was measured. Where the other kind alone keeps the
objectives its price does not count, and it has to have been so for less long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workers.contract import Role

CLEARLY = 0.8  # of what the kind that there is costs; less of a gain is not worth the moves
FOR_S = 2 * 3600.0  # so long it has to have been clear: three comparisons of an hour each
ONLY_FOR_S = 1800.0  # where only the other kind keeps the objectives, which is asked at every look
REST_S = 24 * 3600.0  # after a switch, or after somebody would not have it


@dataclass(frozen=True, slots=True)
class Compared:
    """`ratio`: what the other kind costs over what the one that there is does. `only`: the one that there is does not
    keep the objectives, however many, and the other one does. `counts`: the other's engines by role; None: not found,
    or only by a roofline. `clear_s`: for so long it has been clear. `rested_s`: since the last switch was
    applied or turned down, None: never. `bounds`: least and most of each role."""

    ratio: float | None
    counts: Mapping[Role, int] | None
    clear_s: float
    rested_s: float | None = None
    bounds: Mapping[Role, tuple[int, int | None]] | None = None
    only: bool = False


def is_clear(ratio: float | None, *, only: bool = False) -> bool:
    return only or (ratio is not None and ratio <= CLEARLY)


def wanted(compared: Compared) -> dict[Role, int] | None:
    """The engines of every role after the switch; None where it is not to be proposed."""
    if not is_clear(compared.ratio, only=compared.only) or compared.counts is None:
        return None
    if compared.clear_s < (ONLY_FOR_S if compared.only else FOR_S):
        return None
    if compared.rested_s is not None and compared.rested_s < REST_S:
        return None
    counts = {role: compared.counts.get(role, 0) for role in Role}
    for role, (least, most) in (compared.bounds or {}).items():
        if counts[role] < least or (most is not None and counts[role] > most):
            return None
    return counts
