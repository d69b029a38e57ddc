"""What one horizon's forecaster has learned so far within a process, and whether that holds for what is asked next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.blend import Blend
from controlplane.domain.forecast.hazards import Outage
from controlplane.domain.forecast.history import History
from controlplane.domain.forecast.methods import Forecaster, make
from controlplane.domain.forecast.montecarlo import MonteCarlo


@dataclass(frozen=True, slots=True)
class Key:
    """`gpus`: of models of one size alone, of which each takes `slots`; 0: of all."""

    horizon_s: int
    keep_alive_s: int
    method: str
    gpus: int = 0
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Span:
    """The moments that are looked at: `first` is the place of the first that is asked about."""

    key: Key
    start: float
    end: float
    step_s: float
    first: int
    gaps: tuple[Outage, ...]
    unseen: int | None  # models that are deployed and were never asked for; None: the record is of another fleet

    def seen(self, requests: Requests) -> History:
        key = self.key
        return History(requests, key.keep_alive_s, key.horizon_s, self.start, self.end, self.step_s, self.gaps)


@dataclass(slots=True)
class Asked:
    """One horizon's forecaster, and the first of its moments that it was not asked about."""

    anchor: float
    first: int  # the place of the anchor: with another one, moments have other places
    models: tuple[str, ...]
    plays: MonteCarlo
    forecaster: Forecaster
    following: int

    @classmethod
    def anew(cls, span: Span, anchor: float, models: tuple[str, ...], levels: Sequence[float]) -> Asked:
        plays = MonteCarlo()
        (forecaster,) = make([span.key.method], levels, plays=plays)
        return cls(anchor, span.first, models, plays, forecaster, span.first)

    def follows(self, requests: Requests, history: History, span: Span) -> bool:
        """What it learned holds for what is asked now. That is also so where models were asked for the first time since
        the last moment but one: it would have learned the same with them (those of the last minutes may be told late,
        as they may of all others)."""
        last, anchor = len(history.moments) - 1, float(history.moments[span.first])
        if (self.anchor, self.first) != (anchor, span.first) or self.following > last:
            return False
        if self.models == requests.models:
            return True
        before = set(self.models)
        new = np.array([name not in before for name in requests.models], bool)
        if len(requests.models) - int(new.sum()) != len(self.models) or self.following - 2 < span.first:
            return False
        first = requests.at[new[requests.model]].min(initial=np.inf)
        return bool(first > history.moments[self.following - 2])

    def join(self, models: tuple[str, ...], history: History) -> None:
        """These are the models from now on; those that there were are among them."""
        if models == self.models:
            return
        place = {name: at for at, name in enumerate(models)}
        if isinstance(self.forecaster, Blend):
            self.forecaster.joined(np.array([place[name] for name in self.models], np.int64))
        self.plays.joined(history)
        self.models = models
