"""Requests and their lengths from the history by the minute: for sizes, where single requests are not on record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.lengths import LEAST_REQUESTS, answered
from controlplane.domain.replay import Trace
from controlplane.planning import history
from controlplane.planning.bursts import MINUTE_S
from controlplane.planning.packing import Packed

HOUR_S = 3600.0
Table = NDArray[np.float64]  # by burst: begun, ended, requests, tokens of its prompts and of its answers


def replayed(model: str, since: float, until: float, most: int) -> Trace:
    """Of what was asked of `model` in [since, until), unix seconds, the newest, `most` at most; of what tells tokens
    alone, of prompts and answers. Requests are spread evenly over their burst, over a minute at most, and are of a mean
    length, for extremes are not on record: that of their burst where it was imported, of their hour where gateways
    counted it."""
    counted, imported = (_table(parts, since, until) for parts in history.bursts(since, until, model))
    rows = np.concatenate([_by_hour(counted), _by_burst(imported)])
    at, isl, osl = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    left = most
    for begun, ended, requests, prompt, answer in rows[np.argsort(rows[:, 0], kind="stable")][::-1]:
        if left <= 0:
            break
        number = int(requests)
        taken = min(number, left)
        at.append(begun + min(ended - begun, MINUTE_S) / number * np.arange(number - taken, number))
        isl.append(np.full(taken, prompt))
        osl.append(np.full(taken, answer))
        left -= taken
    moments = np.concatenate(at)
    inside = moments < until
    lengths = [np.rint(np.concatenate(one)[inside]).astype(np.int64) for one in (isl, osl)]
    return Trace.of(moments[inside], *lengths)


def _table(parts: Sequence[Packed], since: float, until: float) -> Table:
    columns = [np.stack([one.at, one.until, one.number, one.prompt, one.completion], -1) for one in parts]
    rows = np.concatenate([np.empty((0, 5)), *columns])
    return rows[(rows[:, 0] >= since) & (rows[:, 0] < until)]


def _by_burst(rows: Table) -> Table:
    """With the mean length of each in place of its tokens."""
    told = rows[(rows[:, 2:] > 0).all(axis=1)]
    return np.column_stack([told[:, :3], told[:, 3:] / told[:, 2:3]])


def _by_hour(rows: Table) -> Table:
    """Gateways count a request in the minute in which it begins and its tokens in that in which it ends, so that a
    minute may have either without the other, or another's. An hour with few requests has the mean of all. Requests that
    nobody answered are left out, as far as minutes tell."""
    unanswered = ~answered(rows[:, 0], rows[:, 2], rows[:, 4])
    rows = np.column_stack([rows[:, :2], np.where(unanswered, 0.0, rows[:, 2]), rows[:, 3:]])
    sums = rows[:, 2:].sum(axis=0)
    if not (sums > 0).all():
        return np.empty((0, 5))
    _, hour = np.unique(rows[:, 0] // HOUR_S, return_inverse=True)
    requests, *tokens = (np.bincount(hour, column) for column in rows[:, 2:].T)
    known = (requests >= LEAST_REQUESTS) & (tokens[0] > 0) & (tokens[1] > 0)
    means = [
        np.where(known, one / np.maximum(requests, 1.0), whole / sums[0])[hour]
        for one, whole in zip(tokens, sums[1:], strict=True)
    ]
    begun = rows[:, 2] > 0
    return np.column_stack([rows[:, :3], *means])[begun]
