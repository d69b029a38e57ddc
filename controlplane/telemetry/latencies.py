"""Histograms of latencies as a row holds them: JSON text, by name what they come to in seconds and, three numbers an
interval, its ends and how many lie in it; null is an end that is infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from controlplane.domain.histograms import Counts

NAMES = ("ttft", "itl", "tpot", "e2e", "queue", "prefill", "decode")

_decoder = msgspec.json.Decoder(dict[str, tuple[float, list[float | None]]])
_encode = msgspec.json.Encoder().encode


def encode(latencies: Mapping[str, Counts]) -> str | None:
    """None where nothing ended."""
    told = {name: (round(counts.sum_s, 6), _flat(counts)) for name, counts in latencies.items() if counts.inside}
    return _encode(told).decode() if told else None


def decode(text: str | None) -> dict[str, Counts]:
    if not text:
        return {}
    return {name: Counts(sum_s, _intervals(flat)) for name, (sum_s, flat) in _decoder.decode(text).items()}


def _flat(counts: Counts) -> list[float | None]:
    flat: list[float | None] = []
    for (above, up_to), count in sorted(counts.inside.items()):
        flat += [above, None if math.isinf(up_to) else up_to, int(count) if count == int(count) else round(count, 3)]
    return flat


def _intervals(flat: list[float | None]) -> dict[tuple[float, float], float]:
    lows, highs, counts = flat[0::3], flat[1::3], flat[2::3]
    return {
        (low or 0.0, math.inf if high is None else high): count or 0.0
        for low, high, count in zip(lows, highs, counts, strict=True)
    }
