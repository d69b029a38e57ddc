"""How long prompts and answers of a deployment will be, by its history; and a trace that is as long as that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controlplane.domain import lengths
from controlplane.domain.forecast.activity import Floats
from controlplane.domain.lengths import LEVELS, LOOK_BACK, Lengths
from controlplane.domain.replay import Trace
from controlplane.planning import history

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of the next hour; None: too little is on record."""

    isl: Lengths | None
    osl: Lengths | None


def coming(model: str, now: float) -> Forecast:
    """`now`: unix seconds; whole hours before it count, of gateways and of imports alike."""
    end = np.floor(now / HOUR_S) * HOUR_S
    since = float(end - LOOK_BACK * HOUR_S)
    found = history.requests(since, float(end), model=model, tokens=True)
    if found.tokens is None or not len(found.at):
        return Forecast(None, None)
    told = (found.number > 0) & found.tokens.all(axis=1)  # of a burst without tokens nothing is known
    hours = ((found.at[told] - since) // HOUR_S).astype(np.int64)
    counts = np.bincount(hours, found.number[told], LOOK_BACK)
    prompts, answers = (np.bincount(hours, found.tokens[told, place], LOOK_BACK) for place in (0, 1))
    return Forecast(*(_coming(column, counts) for column in (prompts, answers)))


def lengthened(trace: Trace, forecast: Forecast, level: float) -> Trace:
    """The same requests, each as many times as long as the mean at that level is over the trace's own: never shorter,
    for what was asked may be asked again."""
    isl, osl = (
        1.0 if told is None else max(1.0, told.at(level) / float(mine.mean()))
        for told, mine in ((forecast.isl, trace.isl), (forecast.osl, trace.osl))
    )
    return trace.longer(isl, osl)


def as_json(forecast: Forecast, trace: Trace, level: float) -> dict[str, Any]:
    """`trace`: as it is replayed; its requests' own quantiles are told, too."""
    return {
        "level": level,
        "isl": _told(forecast.isl, trace.isl),
        "osl": _told(forecast.osl, trace.osl),
    }


def _coming(tokens: Floats, counts: Floats) -> Lengths | None:
    return lengths.coming(tokens, counts)


def _told(told: Lengths | None, mine: Any) -> dict[str, Any]:
    by_level = zip(LEVELS, np.quantile(mine, LEVELS), strict=True)
    return {
        "mean": None if told is None else {f"{level:g}": round(one, 1) for level, one in zip(
            told.levels, told.means, strict=True)},
        "covered": None if told is None else {f"{level:g}": round(one, 3) for level, one in zip(
            told.levels, told.covered, strict=True)},
        "windows": told.windows if told else 0,
        "why": told.why if told else "too little is on record",
        "requests": {f"{level:g}": round(float(one), 1) for level, one in by_level},
    }  # fmt: skip
