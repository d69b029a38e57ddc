"""All methods by the name that a command line gives, each with the correction it is judged with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from controlplane.domain.forecast.activity import Floats
from controlplane.domain.forecast.binomial import Aegaeon, PoissonBinomial
from controlplane.domain.forecast.blend import Blend, Tracked
from controlplane.domain.forecast.history import Method, Seen
from controlplane.domain.forecast.montecarlo import MonteCarlo
from controlplane.domain.forecast.regression import QuantileRegression
from controlplane.domain.forecast.simple import ArSeasonal, Empirical, LastValue, SameHour
from controlplane.domain.forecast.stacked import Stacked
from controlplane.domain.forecast.tracker import ByHour, Conformal, Tracker


class Forecaster(Protocol):
    """Tells what to hold, from what is seen; asked in the order of time. `told`: its last answer."""

    @property
    def name(self) -> str: ...

    told: Floats

    def tell(self, seen: Seen) -> Floats: ...


DEFAULT = "best"
METHODS: dict[str, Callable[[MonteCarlo], Method]] = {
    "last": lambda plays: LastValue(),
    "empirical": lambda plays: Empirical(),
    "hour": lambda plays: SameHour(),
    "ar": lambda plays: ArSeasonal(),
    "binomial": lambda plays: PoissonBinomial(),
    "aegaeon": lambda plays: Aegaeon(),
    "montecarlo": lambda plays: plays,
    "stacked": Stacked,
    "regression": QuantileRegression,
}
BASELINES = ("last", "empirical", "hour", "ar", "binomial", "aegaeon")
NAMES = (DEFAULT, *METHODS)


def make(
    names: Sequence[str], levels: Sequence[float], *, seed: int = 7, plays: MonteCarlo | None = None
) -> list[Forecaster]:
    """`levels`: rising, within 0..1. `plays`, by default of this seed, are shared by all that use them, and timed with
    the first of them. Raises KeyError for a name that is not in NAMES."""
    wanted = np.asarray(levels, np.float64)
    plays = MonteCarlo(seed=seed) if plays is None else plays
    return [best(wanted, plays) if name == DEFAULT else Tracked(METHODS[name](plays), wanted) for name in names]


def best(levels: Floats, plays: MonteCarlo) -> Blend:
    """The default: what is usual now, and what follows from who is active."""
    parts: list[Method] = [SameHour(), plays, Stacked(plays), QuantileRegression(plays)]
    return Blend(parts, levels, (Tracker, Conformal, ByHour))
