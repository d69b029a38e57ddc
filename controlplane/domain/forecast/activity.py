"""From requests to the number of active models: who was active when, how many at once, and the peak of a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Requests:
    """A log of requests. `model` holds places in `models`; `at` and `until` are seconds; all of shape (rows,). A row
    may stand for `number` requests whose gaps are shorter than any keep-alive that is asked for. `tokens`: of the
    prompts and of the answers, summed by row, shape (rows, 2), 0 where nobody told; None: not looked at."""

    models: tuple[str, ...]
    model: Ints
    at: Floats
    until: Floats
    number: Ints
    tokens: Ints | None = None

    @classmethod
    def of(
        cls,
        models: tuple[str, ...],
        model: ArrayLike,
        at: ArrayLike,
        until: ArrayLike | None = None,
        number: ArrayLike | None = None,
        *,
        tokens: ArrayLike | None = None,
    ) -> Requests:
        """Sorted by time; rows whose times are no numbers are left out; one that ends before it begins, ends then."""
        places, begun = np.asarray(model, np.int64), np.asarray(at, np.float64)
        ended = begun if until is None else np.asarray(until, np.float64)
        counts = np.ones(len(places), np.int64) if number is None else np.asarray(number, np.int64)
        good = np.isfinite(begun) & np.isfinite(ended) & (places >= 0) & (places < len(models))
        order = np.flatnonzero(good)[np.argsort(begun[good], kind="stable")]
        told = None if tokens is None else np.asarray(tokens, np.int64).reshape(-1, 2)[order]
        return cls(models, places[order], begun[order], np.maximum(begun, ended)[order], counts[order], told)

    def within(self, start: float, end: float) -> Requests:
        """Those that arrived in [start, end)."""
        first, last = np.searchsorted(self.at, [start, end])
        return self._part(self.models, self.model, slice(int(first), int(last)))

    def asked(self) -> Requests:
        """Of the models alone that have any."""
        there = np.unique(self.model)
        return self if len(there) == len(self.models) else self.only(there)

    def only(self, models: ArrayLike) -> Requests:
        """Of these models alone, by their places."""
        kept = np.asarray(models, np.int64)
        anew = np.full(len(self.models), -1)
        anew[kept] = np.arange(len(kept))
        mine = anew[self.model] >= 0
        names = tuple(self.models[place] for place in kept)
        return self._part(names, anew[self.model], mine)

    def _part(self, models: tuple[str, ...], model: Ints, part: slice | NDArray[np.bool_]) -> Requests:
        """These rows; `model`: of all rows, places in `models`."""
        tokens = None if self.tokens is None else self.tokens[part]
        return Requests(models, model[part], self.at[part], self.until[part], self.number[part], tokens)


@dataclass(frozen=True, slots=True)
class Runs:
    """Times without a gap in which a model was active, keep-alive included; ordered by model, then by time."""

    count: int  # models
    keep_alive_s: float
    model: Ints
    start: Floats
    end: Floats

    def known_at(self, now: float) -> Runs:
        """What had begun by then. A run that had not ended by then has no end: infinity."""
        begun = self.start <= now
        end = np.where(self.end[begun] > now, np.inf, self.end[begun])
        return Runs(self.count, self.keep_alive_s, self.model[begun], self.start[begun], end)

    def since(self, start: float) -> Runs:
        """Without what ended before."""
        kept = self.end > start
        return Runs(self.count, self.keep_alive_s, self.model[kept], self.start[kept], self.end[kept])


def runs(requests: Requests, keep_alive_s: float) -> Runs:
    """Merge each model's requests to runs: a new one begins where the last had been over for longer than keep-alive."""
    order = np.lexsort((requests.at, requests.model))
    model, at, until = requests.model[order], requests.at[order], requests.until[order]
    if not len(at):
        empty = np.empty(0)
        return Runs(len(requests.models), keep_alive_s, np.empty(0, np.int64), empty, empty)
    # One running maximum for all: each model's times are lifted above those of the model before.
    lift = model * (float(until.max() - at.min()) + 1.0)
    latest = np.maximum.accumulate(until + lift) - lift
    begins = np.ones(len(at), bool)
    begins[1:] = (model[1:] != model[:-1]) | (at[1:] > latest[:-1] + keep_alive_s)
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(at)) - 1
    return Runs(len(requests.models), keep_alive_s, model[first], at[first], latest[last] + keep_alive_s)


@dataclass(frozen=True, slots=True)
class Count:
    """A(t): `value[k]` models are active from `time[k]` until `time[k + 1]`. It begins at minus infinity with none."""

    time: Floats
    value: Ints

    def at(self, moments: ArrayLike) -> Ints:
        return self.value[np.searchsorted(self.time, np.asarray(moments, np.float64), side="right") - 1]

    def peak(self, starts: ArrayLike, horizon_s: float) -> Ints:
        """Its maximum over [start, start + horizon), shape of `starts`."""
        begin = np.asarray(starts, np.float64)
        first = np.searchsorted(self.time, begin, side="right") - 1
        last = np.maximum(np.searchsorted(self.time, begin + horizon_s, side="left"), first + 1)
        padded = np.append(self.value, 0)
        return np.maximum.reduceat(padded, np.stack([first, last], -1).ravel())[::2] if begin.size else first

    def mean(self, start: float, end: float) -> float:
        """Its mean over [start, end)."""
        edges = np.concatenate([[start], self.time[(self.time > start) & (self.time < end)], [end]])
        return float(np.dot(self.at(edges[:-1]), np.diff(edges)) / (end - start))


@dataclass(frozen=True, slots=True)
class Activations:
    """When models became active, in order, and how many were active at once with each; shape (activations,). Of those
    that begin together the first counts itself alone, the last them all."""

    at: Floats
    active: Ints

    def between(self, start: float, end: float) -> Ints:
        """How many were active with each that began in [start, end)."""
        first, last = np.searchsorted(self.at, [start, end])
        return self.active[int(first) : int(last)]


def activations(active: Runs, total: Count) -> Activations:
    """`total`: of the same runs."""
    begun = np.sort(active.start)
    behind = np.searchsorted(begun, begun, side="right") - 1 - np.arange(len(begun))  # begin with it, after it
    return Activations(begun, total.at(begun) - behind)


def count(active: Runs, weights: ArrayLike | None = None) -> Count:
    """How many models are active over time; with `weights` by model (whole numbers, as of GPUs) their sum."""
    each = np.ones(active.count, np.int64) if weights is None else np.asarray(weights, np.int64)
    steps = each[active.model]
    ended = np.isfinite(active.end)
    times = np.concatenate([[-np.inf], active.start, active.end[ended]])
    change = np.concatenate([[0], steps, -steps[ended]])
    order = np.lexsort((change, times))  # who leaves makes room for who comes at the same moment
    times, change = times[order], change[order]
    last = np.append(np.flatnonzero(np.diff(times)), len(times) - 1)
    return Count(times[last], np.cumsum(change)[last])
