"""Whose an engine's time is. Pure, on arrays: an hour of a busy fleet is hundreds of thousands of requests.

Within a minute an engine's time is *active* while a request is at it, and *reserved* while it is up for one that does
not come. Active time is split among those whose requests are there, by the tokens that fall into the minute: those of
a request are taken to be spread evenly over its time. What is not known to have been up is neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HOUR_S = 3600.0
MINUTE_S = 60.0
MINUTES = 60

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stays:
    """Requests at engines, in seconds since the hour began; they may reach beyond it. One that is prefilled on one
    engine and decoded on another is two. `tokens` below 1 count as 1: who used time without a token pays for time."""

    engine: Ints
    start: Floats
    end: Floats
    tokens: Floats


@dataclass(frozen=True, slots=True)
class Ups:
    """Engines that were up: a row an engine and minute of the hour, at most one each. `up_s`: seconds of the minute."""

    engine: Ints
    minute: Ints
    up_s: Floats
    gpus: Floats


@dataclass(frozen=True, slots=True)
class Split:
    """GPU-seconds: active by stay, reserved by row of the ups. Together they are the ups' own, to rounding."""

    active: Floats
    reserved: Floats


def split(stays: Stays, ups: Ups) -> Split:
    """Stays at an engine in a minute in which it is not known to have been up get nothing of that minute."""
    piece = _pieces(stays, ups)
    busy = np.minimum(_covered(piece, len(ups.minute)), ups.up_s)
    all_weights = np.bincount(piece.row, piece.weight, minlength=len(ups.minute))
    share = piece.weight / all_weights[piece.row] * busy[piece.row] * ups.gpus[piece.row]
    active = np.bincount(piece.stay, share, minlength=len(stays.start)).astype(np.float64)
    return Split(active, (ups.up_s - busy) * ups.gpus)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What of each stay lies in one minute: `row` of the ups, times since the minute began."""

    stay: Ints
    row: Ints
    start: Floats
    end: Floats
    weight: Floats


def _pieces(stays: Stays, ups: Ups) -> _Pieces:
    begin, end = np.clip(stays.start, 0.0, HOUR_S), np.clip(stays.end, 0.0, HOUR_S)
    first = np.floor(begin / MINUTE_S).astype(np.int64)
    count = np.where(end > begin, np.ceil(end / MINUTE_S).astype(np.int64) - first, 0)
    stay = np.repeat(np.arange(len(count)), count)
    minute = first[stay] + np.arange(len(stay)) - np.repeat(np.cumsum(count) - count, count)
    row = _rows(stays.engine[stay], minute, ups)
    zero = minute * MINUTE_S
    start, stop = np.maximum(begin[stay] - zero, 0.0), np.minimum(end[stay] - zero, MINUTE_S)
    known = np.flatnonzero((row >= 0) & (stop > start))
    stay, row, start, stop = stay[known], row[known], start[known], stop[known]
    whole = (stays.end - stays.start)[stay]
    weight = np.maximum(stays.tokens[stay], 1.0) * (stop - start) / whole
    return _Pieces(stay, row, start, stop, weight)


def _rows(engine: Ints, minute: Ints, ups: Ups) -> Ints:
    """The row of the ups for each; -1 where there is none."""
    engines = 1 + int(max(engine.max(initial=-1), ups.engine.max(initial=-1)))
    table = np.full(engines * MINUTES, -1, np.int64)
    table[ups.engine * MINUTES + ups.minute] = np.arange(len(ups.minute))
    found: Ints = table[engine * MINUTES + minute]
    return found


def _covered(piece: _Pieces, rows: int) -> Floats:
    """Seconds of each row's minute in which at least one stay was there."""
    order = np.lexsort((piece.start, piece.row))
    row, apart = piece.row[order], piece.row[order] * (2 * MINUTE_S)  # minutes laid out one after the other, apart
    start, end = piece.start[order] + apart, piece.end[order] + apart
    before = np.concatenate([[-1.0], np.maximum.accumulate(end)[:-1]])[: len(end)]
    gained = np.maximum(end - np.maximum(start, before), 0.0)
    return np.bincount(row, gained, minlength=rows).astype(np.float64)
