"""How long prompts and answers of a deployment will be, by its history; and a trace that is as long as that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controlplane.domain import engine_args, lengths
from controlplane.domain.forecast.activity import Floats
from controlplane.domain.lengths import LEVELS, LOOK_BACK, Lengths
from controlplane.domain.replay import Trace
from controlplane.fleet.models import Deployment
from controlplane.planning import history

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of the next hour; None: too little is on record."""

    isl: Lengths | None
    osl: Lengths | None


def coming(model: str, now: float) -> Forecast:
    """`now`: unix seconds; whole hours before it count, of gateways and of imports alike."""
    since = (now // HOUR_S - LOOK_BACK) * HOUR_S
    counts, prompts, answers = _by_hour(model, since)
    return Forecast(lengths.coming(prompts, counts), lengths.coming(answers, counts))


def lengthened(trace: Trace, forecast: Forecast, level: float, most: int | None = None) -> Trace:
    """The same requests, each as many times as long as the mean at that level is over the trace's own: never shorter,
    for what was asked may be asked again. `most`: as `longest` says."""
    isl, osl = (
        1.0 if told is None else max(1.0, told.at(level) / float(mine.mean()))
        for told, mine in ((forecast.isl, trace.isl), (forecast.osl, trace.osl))
    )
    return trace.longer(isl, osl, most)


def longest(deployment: Deployment) -> int | None:
    """Tokens of a request, prompt and answer, that any of its engines takes; None where nothing says it."""
    given = [
        engine_args.int_value([*deployment.engine_args, *own], "--max-model-len") or 0
        for own in (deployment.prefill_args, deployment.decode_args)
    ]
    most = max(given)
    return most if most > 0 else int(deployment.model.facts.get("context_length") or 0) or None


def as_json(forecast: Forecast, trace: Trace, level: float) -> dict[str, Any]:
    """`trace`: as it is replayed; its requests' own quantiles are told, too."""
    return {
        "level": level,
        "isl": _told(forecast.isl, trace.isl),
        "osl": _told(forecast.osl, trace.osl),
    }


def _by_hour(model: str, since: float) -> Floats:
    """Requests, tokens of prompts and of answers, shape (3, LOOK_BACK); 0 where one of them is. Of an imported burst
    without tokens nothing is known. Of gateways' minutes every one counts whose requests were answered, for a long
    answer's tokens lie in a later one than its beginning."""
    summed = np.zeros((3, LOOK_BACK))
    counted, imported = history.bursts(since, since + LOOK_BACK * HOUR_S, model)
    for parts, whole in ((counted, False), (imported, True)):
        if not parts:
            continue
        at = np.concatenate([part.at for part in parts])
        rows = np.concatenate([np.stack([part.number, part.prompt, part.completion]) for part in parts], axis=1)
        hours = ((at - since) // HOUR_S).astype(np.int64)
        kept = (hours >= 0) & (hours < LOOK_BACK) & (rows.all(axis=0) if whole else True)
        if not whole:
            rows[0] *= lengths.answered(at, *rows[[0, 2]].astype(np.float64))
        summed += [np.bincount(hours[kept], row[kept], LOOK_BACK) for row in rows]
    return np.where(summed.all(axis=0), summed, 0.0)


def _told(told: Lengths | None, mine: Any) -> dict[str, Any]:
    by_level = zip(LEVELS, np.quantile(mine, LEVELS), strict=True)
    return {
        "mean": None if told is None else {f"{level:g}": round(one, 1) for level, one in zip(
            told.levels, told.means, strict=True)},
        "covered": None if told is None else {
            f"{level:g}": None if one is None else round(one, 3)
            for level, one in zip(told.levels, told.covered, strict=True)
        },
        "windows": told.windows if told else 0,
        "why": told.why if told else "too little is on record",
        "requests": {f"{level:g}": round(float(one), 1) for level, one in by_level},
    }  # fmt: skip
