"""Which stretch of time is read, in what steps, and from rows of what width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db.models import Model

from controlplane.telemetry.models import (
    EngineHour,
    EngineMinute,
    EngineSample,
    GpuHour,
    GpuMinute,
    GpuSample,
    Rollup,
)

MAX_POINTS = 600
SETTLE_S = 3.0  # the newest window may not be written yet: no gap is shown for it
MAX_ROWS = 150_000  # what one answer may read; more GPUs or a longer time are read from wider rows
RAW, MINUTE, HOUR = 0, 60, 3600
DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Tier:
    """Rows of one width. The raw ones' is settings.SAMPLE_EVERY_S, and 0 here."""

    width: int
    gpus: type[Model]
    engines: type[Model]

    @property
    def keep_s(self) -> float:
        return {
            RAW: settings.SAMPLE_KEEP_H * 3600.0,
            MINUTE: settings.SAMPLE_MINUTE_KEEP_DAYS * float(DAY_S),
            HOUR: settings.SAMPLE_HOUR_KEEP_DAYS * float(DAY_S),
        }[self.width]

    @property
    def every_s(self) -> int:
        return self.width or settings.SAMPLE_EVERY_S


TIERS = (
    Tier(RAW, GpuSample, EngineSample),
    Tier(MINUTE, GpuMinute, EngineMinute),
    Tier(HOUR, GpuHour, EngineHour),
)


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end) in unix seconds, on whole steps, read from rows of `width` as far as they are made. `until`: the end
    that was asked for; what happened is known sooner than the samples around it are there."""

    start: int
    end: int
    step: int
    width: int = RAW
    until: float = 0.0

    @property
    def points(self) -> range:
        return range(self.start, self.end, self.step)


@dataclass(frozen=True, slots=True)
class Stretch:
    """[start, end) of one tier's rows."""

    tier: Tier
    start: int
    end: int


def span(start: float, end: float, step: int | None, now: float, *, lines: int = 1) -> Span:
    """Widen `step` until MAX_POINTS are enough, rows of that age and `lines` of them can be had, and end where samples
    can be by now."""
    every = settings.SAMPLE_EVERY_S
    step = max(step or every, math.ceil((end - start) / MAX_POINTS), every)
    tier = _tier(start, end, step, now, lines)
    step = math.ceil(max(step, tier.every_s) / tier.every_s) * tier.every_s
    newest = min(math.ceil(end) - 1, now - SETTLE_S - every)  # the last second whose window can be there
    first = int(start // step) * step
    last = math.floor(newest / step) * step + step
    return Span(first, max(first, last), step, tier.width, end)


def stretches(over: Span) -> list[Stretch]:
    """The rows to read: those of the span's width as far as they are made, then of each narrower one."""
    tiers = [tier for tier in reversed(TIERS) if tier.width <= over.width]
    made = dict(Rollup.objects.values_list("width_s", "upto")) if over.width else {}
    found, begin = [], over.start
    for tier in tiers:
        upto = made[tier.width].timestamp() if tier.width in made else 0
        end = over.end if tier.width == RAW else min(over.end, max(begin, int(upto)))
        if begin < end:
            found.append(Stretch(tier, begin, end))
        begin = max(begin, end)
    return found


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _tier(start: float, end: float, step: int, now: float, lines: int) -> Tier:
    """The widest whose rows are no wider than a step, or a wider one where the narrower are gone or too many."""
    fitting = [tier for tier in TIERS if tier.every_s <= step]
    chosen = fitting[-1] if fitting else TIERS[0]
    for tier in TIERS[TIERS.index(chosen) :]:
        is_kept = now - start <= tier.keep_s
        is_few = lines * (end - start) / tier.every_s <= MAX_ROWS
        if is_kept and is_few:
            return tier
    return TIERS[-1]
