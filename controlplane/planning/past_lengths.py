"""Requests and their lengths from the history by the minute: for sizes, where single requests are not on record."""

from __future__ import annotations

import numpy as np

from controlplane.domain.replay import Trace
from controlplane.planning import history
from controlplane.planning.bursts import MINUTE_S


def replayed(model: str, since: float, until: float, most: int) -> Trace:
    """Of what was asked of `model` in [since, until), unix seconds, the newest, `most` at most; of bursts alone whose
    tokens are told, of prompts and answers. Requests are spread evenly over their burst, over a minute at most, and are
    of its mean length: its extremes are not on record."""
    found = history.requests(since, until, model=model, tokens=True)
    at, isl, osl = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    left = most
    for row in range(len(found.at) - 1, -1, -1):
        number, tokens = int(found.number[row]), found.tokens
        if left <= 0:
            break
        if tokens is None or number <= 0 or not tokens[row].all():
            continue
        taken = min(number, left)
        span = min(found.until[row] - found.at[row], MINUTE_S) / number
        at.append(found.at[row] + span * np.arange(number - taken, number))
        prompt, completion = np.rint(tokens[row] / number).astype(np.int64)
        isl.append(np.full(taken, prompt))
        osl.append(np.full(taken, completion))
        left -= taken
    moments = np.concatenate(at)
    inside = moments < until
    return Trace.of(moments[inside], np.concatenate(isl)[inside], np.concatenate(osl)[inside])
