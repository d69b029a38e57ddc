"""Forecasts of several times agree: the peak of an hour is no less than that of its first ten minutes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from controlplane.planning.models import Forecast


def agree(rows: Sequence[Forecast], horizons: Iterable[int]) -> None:
    """Raise what these rows, of one horizon, tell to what was told of the next shorter one at the same moments. Each
    learns from its own past alone, so where they have little of it they may differ the wrong way round."""
    if not rows or not (shorter := [horizon for horizon in horizons if horizon < rows[0].horizon_s]):
        return
    before = _told(rows, max(shorter))
    for row in rows:
        if (one := before.get(row.at)) is not None and one.levels == row.levels:
            row.values = _raised(row.values, one.values)
            sizes = {size["gpus"]: size["values"] for size in one.by_size}
            for size in row.by_size:
                size["values"] = _raised(size["values"], sizes.get(size["gpus"], size["values"]))


def _told(rows: Sequence[Forecast], horizon_s: int) -> Mapping[datetime, Forecast]:
    moments = [row.at for row in rows]
    found = Forecast.objects.filter(
        horizon_s=horizon_s, keep_alive_s=rows[0].keep_alive_s, at__range=(min(moments), max(moments))
    )
    return {row.at: row for row in found.only("at", "levels", "values", "by_size")}


def _raised(values: list[Any], least: list[Any]) -> list[Any]:
    return [max(one, other) for one, other in zip(values, least, strict=True)]
