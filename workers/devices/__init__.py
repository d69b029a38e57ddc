"""Where devices and their readings come from: NVML, this host's CPU slots, or a labelled simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from workers.contract import Device, DeviceSample
from workers.processes import Figures


@dataclass(frozen=True, slots=True)
class Holder:
    """An engine of this agent's, as the devices need to know it."""

    gpus: tuple[str, ...]
    pids: frozenset[int]
    figures: Figures
    running: float | None = None  # requests, as the engine says


class Source(Protocol):
    simulated: bool

    def driver(self) -> str:
        """What drives the devices, or why there are none; for people."""

    def devices(self) -> tuple[Device, ...]:
        """Every device that is there, and those that were there and are lost."""

    def sample(self, holders: Sequence[Holder], now: float) -> tuple[DeviceSample, ...]:
        """One reading of each of them."""

    def cores(self, uuids: Sequence[str]) -> int:
        """CPU cores that these devices amount to; 0 for accelerators."""
