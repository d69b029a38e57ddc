"""A backtest of forecasts on traces: read, ask every method at every step, judge. For any face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.domain.forecast.activity import Floats, Ints, Requests
from controlplane.domain.forecast.backtest import Outcome, Score, run
from controlplane.domain.forecast.hazards import DAY_S, Outage
from controlplane.domain.forecast.history import UNKNOWN, History
from controlplane.domain.forecast.methods import NAMES, make
from controlplane.domain.forecast.tracker import whole
from controlplane.planning.bursts import MERGED_S
from controlplane.planning.traces import TraceError, read

Told = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """Times in seconds, days counted from the first midnight (UTC) of the trace. `judge_from_day`: None is the middle
    of the trace; `warmup_days`: that methods are asked before it, None is from the trace's beginning on."""

    tau_s: float = 300.0
    horizon_s: float = 600.0
    levels: tuple[float, ...] = (0.95, 0.99)
    step_s: float = 600.0
    warmup_days: float | None = None
    judge_from_day: float | None = None
    methods: tuple[str, ...] = NAMES
    seed: int = 0
    outages: tuple[tuple[float, float], ...] = ()


class BadBacktest(Exception):
    """What was asked cannot be done; the message says why and what can. Nothing was computed."""


@dataclass(frozen=True, slots=True)
class Backtest:
    asked: Asked
    outcome: Outcome
    judge_from: float
    traces: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def history(self) -> History:
        return self.outcome.history

    @property
    def judged_hours(self) -> float:
        moments = self.history.moments[: len(self.history.moments) - self.history.lag]
        judged = (moments >= self.judge_from) & (self.history.peaks[: len(moments)] != UNKNOWN)
        return float(judged.sum() * self.history.step_s / 3600.0)


def backtest(paths: Sequence[Path], asked: Asked, on_step: Told = lambda what, done, of: None) -> Backtest:
    """`on_step`: what is done, how much of it, of how much. Raises TraceError and BadBacktest."""
    _check(asked)
    parts, notes = [], []
    for path in paths:
        found = read(path, seed=asked.seed, on_bytes=lambda done, of, name=path.name: on_step(f"read {name}", done, of))
        parts.append(found.requests)
        notes += [found.note] if found.note else []
    requests = together(parts)
    if not len(requests.at):
        raise TraceError(f"{', '.join(map(str, paths))}: no requests in it")
    return of_requests(
        requests, asked, tuple(path.name for path in paths), tuple(dict.fromkeys(notes)),
        lambda done, of: on_step("decide", done, of),
    )  # fmt: skip


def of_requests(
    requests: Requests,
    asked: Asked,
    traces: tuple[str, ...],
    notes: tuple[str, ...],
    on_step: Callable[[int, int], None],
) -> Backtest:
    """The same of a log that is read, of at least one request. Raises BadBacktest."""
    _check(asked)
    judge_from, history = _history(requests, asked)
    outcome = run(
        history,
        make(asked.methods, asked.levels, seed=asked.seed),
        asked.levels,
        judge_from=judge_from,
        on_step=on_step,
    )
    return Backtest(asked, outcome, judge_from, traces, notes)


def check(requests: Requests, asked: Asked) -> None:
    """Raises BadBacktest where this cannot be asked of this log, of at least one request."""
    _check(asked)
    _judged(requests, asked)


def together(parts: Sequence[Requests]) -> Requests:
    """One log of several; a name means the same model in all of them."""
    names = list(dict.fromkeys(name for part in parts for name in part.models))
    places = {name: place for place, name in enumerate(names)}
    anew = [np.array([places[name] for name in part.models], np.int64)[part.model] for part in parts]
    return Requests.of(
        tuple(names),
        np.concatenate(anew),
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.until for part in parts]),
        np.concatenate([part.number for part in parts]),
        tokens=np.concatenate([_tokens(part) for part in parts])
        if any(part.tokens is not None for part in parts)
        else None,
    )


def _tokens(part: Requests) -> Ints:
    return np.zeros((len(part.at), 2), np.int64) if part.tokens is None else part.tokens


def _check(asked: Asked) -> None:
    unknown = [name for name in asked.methods if name not in NAMES]
    levels = asked.levels
    if unknown or not asked.methods or len(set(asked.methods)) != len(asked.methods):
        raise BadBacktest(f"methods must be some of {', '.join(NAMES)}, each once; not {', '.join(asked.methods)}")
    if not levels or any(not 0 < level < 1 for level in levels) or list(levels) != sorted(set(levels)):
        raise BadBacktest(f"quantiles must rise and lie between 0 and 1, as .95,.99; not {levels}")
    if asked.tau_s < MERGED_S:
        raise BadBacktest(f"the keep-alive must be {MERGED_S:g} s or more: requests closer together are kept as one")
    if min(asked.horizon_s, asked.step_s) <= 0:
        raise BadBacktest("horizon and step must be more than zero seconds")


def _judged(requests: Requests, asked: Asked) -> tuple[float, float, float]:
    """The log's midnight, from when it is judged, and its end."""
    start = float(np.floor(requests.at[0] / DAY_S) * DAY_S)
    end = float(max(requests.at[-1], requests.until.max()))
    days = (end - start) / DAY_S
    judged_day = asked.judge_from_day
    if judged_day is None:
        judged_day = ((requests.at[0] + end) / 2 - start) / DAY_S
    judge_from = start + judged_day * DAY_S
    if not 0 <= judged_day < days or judge_from + asked.horizon_s + asked.step_s > end:
        raise BadBacktest(
            f"the trace ends on day {days:.2f}: no window of {asked.horizon_s:g} s from day {judged_day:g}"
        )
    return start, judge_from, end


def _history(requests: Requests, asked: Asked) -> tuple[float, History]:
    start, judge_from, end = _judged(requests, asked)
    first = start if asked.warmup_days is None else max(start, judge_from - asked.warmup_days * DAY_S)
    # Who was active when the record begins is known a keep-alive later: before, nothing recorded is not no demand.
    first = min(max(first, requests.at[0] + asked.tau_s), judge_from)
    # Steps are counted from the trace's midnight, so that decisions of the same moment are the same for any warm-up.
    first = start + np.ceil((first - start) / asked.step_s) * asked.step_s
    outages = tuple(Outage(start + begin, start + finish) for begin, finish in asked.outages)
    return judge_from, History(requests, asked.tau_s, asked.horizon_s, first, end, asked.step_s, outages)


def as_json(found: Backtest) -> dict[str, Any]:
    """Arrays by level, levels as text: "0.95". None: no window was judged, as where all of them were an outage."""
    history, asked = found.history, found.asked
    scores = dict(zip((*asked.methods, "static", "reactive", "clairvoyant"), found.outcome.scores, strict=True))
    peaks = history.peaks[(history.moments >= found.judge_from) & (history.peaks != UNKNOWN)]
    return {
        "traces": list(found.traces),
        "notes": list(found.notes),
        "models": len(history.requests.models),
        "tau_s": asked.tau_s,
        "horizon_s": asked.horizon_s,
        "step_s": asked.step_s,
        "seed": asked.seed,
        "judge_from_day": (found.judge_from - np.floor(history.requests.at[0] / DAY_S) * DAY_S) / DAY_S,
        "windows": next(iter(scores.values())).windows,
        "judged_hours": found.judged_hours,
        "mean_peak": float(peaks.mean()) if len(peaks) else None,
        "methods": {name: _score(score, found.judged_hours) for name, score in scores.items()},
    }


def _score(score: Score, hours: float) -> dict[str, Any]:
    def by_level(values: Floats) -> dict[str, float | None]:
        pairs = zip(score.levels, values, strict=True)
        return {f"{level:g}": None if np.isnan(value) else round(float(value), 5) for level, value in pairs}

    return {
        "name": score.method,
        "coverage": by_level(score.coverage),
        "coverage_busy": by_level(score.busy_coverage),
        "pinball": by_level(score.pinball),
        "mean_reserve": by_level(score.reserve),
        "mean_reserve_at_equal_coverage": by_level(score.equal_reserve),
        "cold_per_activation": by_level(score.cold),
        "slot_hours_held": by_level(score.held * hours),
        "slot_hours_used": None if np.isnan(score.used) else round(score.used * hours, 3),
        "held_over_used": by_level(score.held / max(score.used, 1e-9)),
        "ms_per_decision": round(score.ms_per_decision, 2),
    }


def told(found: Backtest) -> dict[str, Any]:
    """What the first method told over the judged time, for a figure: seconds, peaks, and reserves by level."""
    history = found.history
    name = found.outcome.scores[0].method
    answers = found.outcome.told[name]
    judged = history.moments[: len(answers)] >= found.judge_from
    return {
        "name": name,
        "at_s": history.moments[: len(answers)][judged].tolist(),
        "peak": [None if one == UNKNOWN else int(one) for one in history.peaks[: len(answers)][judged]],
        "reserve": {
            f"{level:g}": whole(answers[judged, place]).tolist() for place, level in enumerate(found.asked.levels)
        },
    }
