"""What the histograms of one engine process counted since they came before. They come with some reports only."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from controlplane.domain.histograms import Counts, growth
from controlplane.telemetry.latencies import NAMES
from workers.contract import EngineSample, Histogram

GAP_S = 30.0

read = attrgetter(*NAMES)  # of an EngineSample


class Ended:
    """By slot of the engine."""

    def __init__(self) -> None:
        self._held: dict[int, dict[str, tuple[float, Histogram]]] = {}

    def forget(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self._held.pop(slot, None)

    def add(self, slot: int, at: float, sample: EngineSample) -> dict[str, Counts]:
        """What each histogram of this sample counted since the one before it, which an earlier sample brought."""
        grown = {}
        for name, histogram in zip(NAMES, read(sample), strict=True):
            if histogram is None:
                continue
            held = self._held.setdefault(slot, {})
            before, held[name] = held.get(name), (at, histogram)
            if before is None or not 0 <= at - before[0] <= GAP_S:
                continue
            if (counts := growth(before[1], histogram)) is not None:
                grown[name] = counts
        return grown
