"""Token buckets: how many requests a key may send. In memory, per gateway process."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """A bucket per key: it holds one minute's requests and fills evenly."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}

    def take(self, key: int, per_minute: int, now: float) -> int:
        """Take one; 0 when there was one, else the whole seconds until there will be."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(float(per_minute), now)
        rate = per_minute / 60.0
        bucket.tokens = min(float(per_minute), bucket.tokens + max(0.0, now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0
        return max(1, math.ceil((1.0 - bucket.tokens) / rate))

    def keep(self, keys: set[int]) -> None:
        """Forget the buckets of keys that are gone."""
        for gone in self._buckets.keys() - keys:
            del self._buckets[gone]
