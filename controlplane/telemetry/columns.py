"""Figures of many things as one matrix: a row each, float64, NaN where it is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 2.0**62
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]


def known(value: float | None) -> float | None:
    """The value if it is a number a database and a chart can hold, else None: unknown."""
    return value if value is not None and -LARGEST < value < LARGEST else None  # NaN is neither


def matrix(rows: Sequence[Sequence[float | None]], width: int) -> Floats:
    """What is not `known` is NaN."""
    try:
        made = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)  # None becomes NaN
    except OverflowError:  # a whole number beyond any float
        made = np.fromiter(map(known, chain.from_iterable(rows)), np.float64, len(rows) * width)
    made[~(np.abs(made) < LARGEST)] = np.nan
    return made.reshape(len(rows), width)


def plain(figures: Floats) -> list[list[Any]]:
    """As Python's own numbers, None for NaN."""
    made = figures.astype(object)
    made[np.isnan(figures)] = None
    return made.tolist()  # type: ignore[no-any-return]


def roomy(held: NDArray[Any], count: int) -> NDArray[Any]:
    """`held`, or a copy of it that has zeros behind it, with room for `count` rows."""
    if count <= len(held):
        return held
    made = np.zeros((max(count, 2 * len(held)), *held.shape[1:]), held.dtype)
    made[: len(held)] = held
    return made
