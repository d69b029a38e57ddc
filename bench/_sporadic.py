"""Sporadic models of a trace of a model service, played faster than it was recorded: what is asked in a window of a
day, and what was asked of the same models before it."""

from __future__ import annotations

import csv
import gzip
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.forecast import sporadic
from controlplane.domain.forecast.activity import Floats, Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.planning import traces

FROM_S = 6 * 86_400.0 + 10 * 3600.0  # day 6, ten in the morning
DUTY = 0.7  # of the slots' time, at most, that all models together are active


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, as played. `faster`: than the trace was recorded."""

    keep_alive: float
    residence: float  # nobody is made to leave sooner
    gap: float  # at least, between two requests for one model
    faster: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """`plan`: (seconds from the beginning, model), in order. `past`: what was asked before, at seconds from the
    beginning that are negative; models by place, as in the plan."""

    plan: list[tuple[float, int]]
    past: Requests


def draw(trace: Path, pace: Pace, *, seconds: float, models: int, slots: int, days: float) -> Drawn:
    """Of the clients that come and go the most among those that are active for so little of the time played that the
    slots would do for all of them, on the mean. `days`: of the trace, before it."""
    first = FROM_S // DAY_S * DAY_S
    day = _read(trace, lambda row: first <= float(row["t_s"]) < first + DAY_S)  # drawing all days takes two minutes
    requests = sporadic(day).within(FROM_S, FROM_S + seconds * pace.faster)
    times = {
        int(model): _thinned((requests.at[requests.model == model] - FROM_S) / pace.faster, pace.gap)
        for model in np.unique(requests.model)
    }
    most = DUTY * slots * seconds / models
    rare = {model: at for model, at in times.items() if _active(at, pace) < most}
    chosen = sorted(rare, key=lambda model: (-_comings(rare[model], pace), model))[:models]
    if len(chosen) < models:
        raise SystemExit(f"only {len(chosen)} models of the trace are that sporadic then")
    plan = sorted((float(moment), place) for place, model in enumerate(chosen) for moment in rare[model])
    return Drawn(plan, _past(trace, pace, [requests.models[model] for model in chosen], days))


def _past(trace: Path, pace: Pace, names: list[str], days: float) -> Requests:
    """In the window's own time: an hour of the trace takes an hour divided by the pace, a day so much less, too."""
    if not days:
        return Requests.of(tuple(names), [], [])
    wanted, since = set(names), FROM_S - days * DAY_S
    found = _read(trace, lambda row: row["client"] in wanted and since <= float(row["t_s"]) < FROM_S)
    places = {name: place for place, name in enumerate(names)}
    place = np.array([places[name] for name in found.models])[found.model]
    at, until = ((moment - FROM_S) / pace.faster for moment in (found.at, found.until))
    return Requests.of(tuple(names), place, at, until, found.number)


def _read(trace: Path, is_wanted: Callable[[dict[str, str]], bool]) -> Requests:
    with gzip.open(trace, "rt") as whole, tempfile.NamedTemporaryFile("w", suffix=".csv") as part:
        rows = csv.DictReader(whole)
        kept = csv.DictWriter(part, rows.fieldnames or [])
        kept.writeheader()
        kept.writerows(row for row in rows if is_wanted(row))
        part.flush()
        return traces.read(Path(part.name)).requests


def _thinned(at: Floats, gap_s: float) -> Floats:
    kept: list[float] = []
    for moment in np.sort(at).tolist():
        if not kept or moment - kept[-1] >= gap_s:
            kept.append(moment)
    return np.array(kept)


def _active(at: Floats, pace: Pace) -> float:
    """Seconds with a request within the keep-alive before."""
    return float(np.minimum(np.diff(at), pace.keep_alive).sum()) + pace.keep_alive


def _comings(at: Floats, pace: Pace) -> int:
    return int((np.diff(at) > pace.keep_alive).sum()) + 1
