"""What the gateway's records say of the last minute, for the dashboard."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from controlplane.gateway.models import DemandMinute, RequestRecord

KEEP_S = 1.0
LONGEST_S = 900  # a request that took longer is not looked for
SAMPLE = 4000  # the newest ended requests that percentiles are taken from
COLUMNS = ("at", "total_ms", "ttft_ms", "itl_ms", "completion_tokens", "deployment")


@dataclass(frozen=True, slots=True)
class Served:
    """One deployment's ended requests: a second, and milliseconds. None where no request tells."""

    rps: float
    ttft_p95_ms: float | None
    itl_p95_ms: float | None


def live_summary(window_s: int = 60) -> dict[str, Any]:
    """Figures of the requests that ended in the last `window_s` seconds. None where none tells."""
    began = timezone.now() - timedelta(seconds=window_s)
    ended, seconds = _ended(began, window_s)
    return {
        "window_s": window_s,
        "rps": round(len(ended) / seconds, 3),
        "ttft_ms": _percentiles([row[2] for row in ended if row[2] is not None]),
        "itl_ms": _percentiles([row[3] for row in ended if row[3] is not None]),
        "tokens_out_per_s": round(sum(row[4] or 0 for row in ended) / seconds, 3),
        "active_models": len({row[5] for row in ended if row[5]} | _in_flight(began)),
    }


class _Kept:
    """What was told last, and when by the monotonic clock; one for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at, self._told = float("-inf"), dict[str, Any]()

    def get(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() - self._at > KEEP_S:
                self._told, self._at = live_summary(), time.monotonic()
            return self._told


_kept = _Kept()


def recent_summary() -> dict[str, Any]:
    """`live_summary`, up to a second old: thousands of records are read for it, whoever asks."""
    return live_summary() if connection.in_atomic_block else _kept.get()  # a transaction has rows of its own


def by_deployment(window_s: int = 60, since: Mapping[str, datetime] | None = None) -> dict[str, Served]:
    """Of each deployment that had a request end in the last `window_s` seconds, by its name. `since`: of those named
    there, only requests that came after it count for the percentiles."""
    ended, seconds = _ended(timezone.now() - timedelta(seconds=window_s), window_s)
    found: dict[str, list[Any]] = defaultdict(list)
    for row in ended:
        found[row[5]].append(row)
    return {name: _served(rows, seconds, (since or {}).get(name)) for name, rows in found.items()}


def _served(rows: Sequence[Any], seconds: float, since: datetime | None) -> Served:
    told = [row for row in rows if since is None or row[0] >= since]
    return Served(
        rps=round(len(rows) / seconds, 3),
        ttft_p95_ms=_percentiles([row[2] for row in told if row[2] is not None])["p95"],
        itl_p95_ms=_percentiles([row[3] for row in told if row[3] is not None])["p95"],
    )


def _ended(began: datetime, window_s: int) -> tuple[list[Any], float]:
    """The requests that ended since, as COLUMNS, and the seconds that they stand for."""
    rows = list(
        RequestRecord.objects.filter(at__gte=began - timedelta(seconds=LONGEST_S))
        .exclude(outcome="rejected")
        .order_by("-id")
        .values_list(*COLUMNS)[:SAMPLE]
    )
    ended = [row for row in rows if row[0] + timedelta(milliseconds=row[1]) >= began]
    return ended, _covered_s(rows, ended, window_s)


def _covered_s(rows: Sequence[Any], ended: Sequence[Any], window_s: int) -> float:
    """The seconds that `ended` stands for: fewer than the window when the sample is full of recent ones."""
    if len(rows) < SAMPLE or len(ended) < len(rows):
        return float(window_s)
    first = min(row[0] for row in ended)
    return max(1.0, min(float(window_s), (timezone.now() - first).total_seconds()))


def _in_flight(began: Any) -> set[str]:
    """Deployments with a request in flight since, ended or not."""
    minutes = DemandMinute.objects.filter(minute__gte=began.replace(second=0, microsecond=0), active_s__gt=0)
    return set(minutes.values_list("deployment", flat=True))


def _percentiles(values: list[float]) -> dict[str, float | None]:
    values.sort()
    return {"p50": _at(values, 0.50), "p95": _at(values, 0.95)}


def _at(values: list[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted `values`."""
    return round(values[min(len(values) - 1, int(share * len(values)))], 3) if values else None
