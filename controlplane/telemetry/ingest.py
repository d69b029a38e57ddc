"""What this process remembers of reports: their order, engine totals, and the open sampling windows.

Reports wait a moment and are added up together, all at once for each figure. Another web process has its own memory; a
node whose reports are spread over two yields two rows a window, both true."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import structlog

from controlplane.telemetry import ended, kv_trouble
from controlplane.telemetry.columns import known, matrix, plain
from controlplane.telemetry.ended import Ended
from controlplane.telemetry.latest import EngineFigures, Latest
from controlplane.telemetry.rates import TOTALS, Growth, Histories
from controlplane.telemetry.windows import ENGINE_GAUGES, GPU_GAUGES, Closed, Window, Windows
from workers.contract import NodeReport, ReplicaStatus

log = structlog.get_logger(__name__)

FORGET_AFTER_S = 600.0
MOST_WAITING = 4_096  # reports; whoever brings one more adds them up
_read_gpu = attrgetter(*GPU_GAUGES)
_read_engine = attrgetter(*ENGINE_GAUGES, *TOTALS)
_TROUBLE = {TOTALS.index(total): verb for total, verb in kv_trouble.TOTALS.items()}


@dataclass(slots=True)
class _Heard:
    """Order of one node's reports, and its engines' slots by partition."""

    boot: str = ""
    left_boot: str = ""  # the one before: what still arrives of it is late
    seq: int = -1
    at: float = 0.0
    slots: dict[int, int] = field(default_factory=dict)


# Plain tuples: these are made for each report.
_Came = tuple[int, NodeReport, float]  # node, what it says, when it came
_Engines = list[ReplicaStatus]  # those with a sample, a partition each


class Ingest:
    def __init__(self, every_s: int) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Came] = deque()
        self._nodes: dict[int, _Heard] = {}
        self._windows = Windows(every_s)
        self._histories, self._ended = Histories(), Ended()
        self._free: list[int] = []  # slots
        self._slots = 0
        self._trouble: dict[kv_trouble.Key, float] = {}
        self._latest: dict[int, Latest] = {}

    def put(self, node: int, report: NodeReport, now: float) -> None:
        """It is added with all others at the next look at figures or windows."""
        self._waiting.append((node, report, now))
        if len(self._waiting) > MOST_WAITING:
            self._settle()

    def accept(self, node: int, report: NodeReport, now: float) -> Latest | None:
        """Add it at once; its figures, or None for a report that is repeated or late."""
        self.put(node, report, now)
        return self.pop_latest(node).get(node)

    def pop_latest(self, *nodes: int) -> dict[int, Latest]:
        """The newest figures of each of these nodes, or of all, that was heard since they were asked for."""
        self._settle()
        with self._lock:
            asked = nodes or tuple(self._latest)
            return {node: self._latest.pop(node) for node in asked if node in self._latest}

    def pop_trouble(self) -> dict[kv_trouble.Key, float]:
        """What grew since the last call of the counters that people are told of."""
        with self._lock:
            trouble, self._trouble = self._trouble, {}
            return trouble

    def close(self, now: float, *, all_of_them: bool = False) -> list[Closed]:
        """The sampling windows that are over, and forget nodes that have long been silent."""
        self._settle()
        with self._lock:
            for node in [node for node, heard in self._nodes.items() if now - heard.at > FORGET_AFTER_S]:
                self._release(self._nodes.pop(node).slots.values())
            return self._windows.close(now, all_of_them=all_of_them)

    def _settle(self) -> None:
        """Add what waits, in the order of its coming."""
        every_s = self._windows.every_s
        with self._lock:
            together: dict[int, tuple[_Came, _Engines]] = {}  # at most one report a node, all of one window
            start = end = 0.0
            while self._waiting:
                node, report, now = came = self._waiting.popleft()
                heard = self._nodes.get(node) or self._nodes.setdefault(node, _Heard())
                if not _is_newer(heard, report):
                    continue
                if node in together or not start <= now < end:
                    self._add(list(together.values()), start)
                    together.clear()
                    start = self._windows.start(now)
                    end = start + every_s
                together[node] = came, self._advance(heard, report, now)
            self._add(list(together.values()), start)

    def _advance(self, heard: _Heard, report: NodeReport, now: float) -> _Engines:
        """Make it the node's newest report; its engines."""
        if report.boot != heard.boot:
            heard.left_boot, heard.boot = heard.boot, report.boot
        heard.seq, heard.at = report.seq, now
        engines = [status for status in report.replicas if status.sample is not None]
        told = {status.partition: status for status in engines}
        if told.keys() != heard.slots.keys():
            self._release([heard.slots.pop(gone) for gone in heard.slots.keys() - told.keys()])
            for partition in told.keys() - heard.slots.keys():
                heard.slots[partition] = self._take_slot()
        return engines if len(engines) == len(told) else list(told.values())

    def _take_slot(self) -> int:
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        slot = self._free.pop()
        self._histories.open(slot)
        return slot

    def _release(self, slots: Iterable[int]) -> None:
        gone = list(slots)
        self._ended.forget(gone)
        self._free += gone

    def _add(self, together: Sequence[tuple[_Came, _Engines]], start: float) -> None:
        """One report each of many nodes. A fault here may not keep later ones from being taken in."""
        if not together:
            return
        window = self._windows.at(int(start))
        try:
            self._add_gpus(together, window)
            figures = iter(self._add_engines(together, window))
            for came, engines in together:
                told = {status.partition: next(figures) for status in engines}
                self._latest[came[0]] = _latest(*came, told)
        except Exception:
            log.exception("figures of reports were lost", nodes=[came[0] for came, _ in together][:10])

    def _add_gpus(self, together: Sequence[tuple[_Came, _Engines]], window: Window) -> None:
        places: list[int] = []
        gauges: list[tuple[float | None, ...]] = []
        for (node, report, _), _ in together:
            places += window.gpus.places(node, [sample.uuid for sample in report.samples])
            gauges += map(_read_gpu, report.samples)
        window.add_gpus(np.array(places, np.intp), matrix(gauges, len(GPU_GAUGES)))

    def _add_engines(self, together: Sequence[tuple[_Came, _Engines]], window: Window) -> list[EngineFigures]:
        """The figures of each, in their order."""
        slots: list[int] = []
        places: list[int] = []
        at: list[float] = []
        for (node, _, now), engines in together:
            held = self._nodes[node].slots
            slots += [held[status.partition] for status in engines]
            places += window.engines.places(node, [status.partition for status in engines])
            at += [now] * len(engines)
        if not slots:
            return []
        every = [status for _, engines in together for status in engines]
        told = matrix([_read_engine(status.sample) for status in every], len(ENGINE_GAUGES) + len(TOTALS))
        gauges, totals = np.hsplit(told, [len(ENGINE_GAUGES)])
        growth = self._histories.add(np.array(slots), np.array(at), [status.pid for status in every], totals)
        window.add_engines(np.array(places), gauges, growth)
        self._ended.forget(slots[row] for row in np.flatnonzero(growth.anew))
        for status, slot, place, now, elapsed_s in zip(every, slots, places, at, growth.elapsed_s, strict=True):
            window.deployments[place] = status.deployment
            if any(ended.read(status.sample)):
                counted = self._ended.add(slot, now, status.sample)
                if counted and elapsed_s >= 0.0:
                    window.add_ended(place, counted)
        self._note_trouble(
            [(node, status.partition) for (node, _, _), engines in together for status in engines], growth
        )
        sizes = [known(status.sample.kv_tokens) if status.sample else None for status in every]
        figures = plain(np.hstack((gauges, growth.per_second, growth.mean_ms)))
        return [EngineFigures(*row, size) for row, size in zip(figures, sizes, strict=True)]

    def _note_trouble(self, whose: Sequence[tuple[int, int]], growth: Growth) -> None:
        for total, verb in _TROUBLE.items():
            for row in np.flatnonzero(growth.by[:, total] > 0.0):
                key = *whose[row], verb
                self._trouble[key] = self._trouble.get(key, 0.0) + float(growth.by[row, total])


def _is_newer(heard: _Heard, report: NodeReport) -> bool:
    if report.boot == heard.boot:
        return report.seq > heard.seq
    return report.boot != heard.left_boot or not report.boot


def _latest(node: int, report: NodeReport, now: float, engines: dict[int, EngineFigures]) -> Latest:
    return Latest(
        node=node,
        seen=now,
        period_s=report.period_s,
        skew_s=known(report.at - now),
        host=report.host,
        devices={sample.uuid: sample for sample in report.samples},
        engines=engines,
        process_bytes={s.partition: s.memory_bytes for s in report.replicas if s.memory_bytes is not None},
    )
