"""What this process remembers of reports: their order, engine totals, and the open sampling windows.

Another web process has its own; a node whose reports are spread over two yields two rows a window, both true."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from controlplane.telemetry import kv_trouble
from controlplane.telemetry.latest import EngineFigures, Latest
from controlplane.telemetry.rates import History, known
from controlplane.telemetry.windows import Closed, Windows
from workers.contract import EngineSample, NodeReport, ReplicaStatus

FORGET_AFTER_S = 600.0
FLOWS = ("prompt_tokens_total", "generation_tokens_total", "external_kv_tokens_total")


@dataclass(slots=True)
class _Heard:
    """Order and totals of one node's reports."""

    boot: str = ""
    left_boot: str = ""  # the one before: what still arrives of it is late
    seq: int = -1
    at: float = 0.0
    engines: dict[int, History] = field(default_factory=dict)


class Ingest:
    def __init__(self, every_s: int) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[int, _Heard] = {}
        self._windows = Windows(every_s)
        self._trouble: dict[kv_trouble.Key, float] = {}

    def accept(self, node: int, report: NodeReport, now: float) -> Latest | None:
        """Add the report to its windows; its figures, or None for a report that is repeated or late."""
        with self._lock:
            heard = self._nodes.setdefault(node, _Heard())
            if not _is_newer(heard, report):
                return None
            _advance(heard, report, now)
            for sample in report.samples:
                self._windows.add_device(node, sample, now)
            engines = {status.partition: self._engine(node, heard, status, now) for status in report.replicas}
        return Latest(
            node=node,
            seen=now,
            period_s=report.period_s,
            skew_s=known(report.at - now),
            host=report.host,
            devices={sample.uuid: sample for sample in report.samples},
            engines={partition: figures for partition, figures in engines.items() if figures is not None},
            process_bytes={s.partition: s.memory_bytes for s in report.replicas if s.memory_bytes is not None},
        )

    def pop_trouble(self) -> dict[kv_trouble.Key, float]:
        """What grew since the last call of the counters that people are told of."""
        with self._lock:
            trouble, self._trouble = self._trouble, {}
            return trouble

    def close(self, now: float, *, all_of_them: bool = False) -> list[Closed]:
        """The sampling windows that are over, and forget nodes that have long been silent."""
        with self._lock:
            for node in [node for node, heard in self._nodes.items() if now - heard.at > FORGET_AFTER_S]:
                del self._nodes[node]
            return self._windows.close(now, all_of_them=all_of_them)

    def _engine(self, node: int, heard: _Heard, status: ReplicaStatus, now: float) -> EngineFigures | None:
        if status.sample is None:
            heard.engines.pop(status.partition, None)
            return None
        history = heard.engines.setdefault(status.partition, History())
        growth = history.add(now, status.pid, status.sample)
        self._windows.add_engine(node, status, growth, now)
        for total, verb in kv_trouble.TOTALS.items():
            if growth and (grown := growth.by[total]):
                key = node, status.partition, verb
                self._trouble[key] = self._trouble.get(key, 0.0) + grown
        return _figures(status.sample, history)


def _is_newer(heard: _Heard, report: NodeReport) -> bool:
    if report.boot == heard.boot:
        return report.seq > heard.seq
    return report.boot != heard.left_boot or not report.boot


def _advance(heard: _Heard, report: NodeReport, now: float) -> None:
    if report.boot != heard.boot:
        heard.left_boot, heard.boot = heard.boot, report.boot
    heard.seq, heard.at = report.seq, now
    gone = heard.engines.keys() - {status.partition for status in report.replicas}
    for partition in gone:
        del heard.engines[partition]


def _figures(sample: EngineSample, history: History) -> EngineFigures:
    prompt, generation, kv_in = history.per_second(*FLOWS)
    return EngineFigures(
        running=known(sample.running),
        waiting=known(sample.waiting),
        kv_usage=known(sample.kv_usage),
        prompt_tps=prompt,
        generation_tps=generation,
        kv_in_tps=kv_in,
        ttft_ms=history.mean_ms("ttft_sum_s", "ttft_count"),
        itl_ms=history.mean_ms("itl_sum_s", "itl_count"),
    )
