"""The agent's figures for Prometheus, on a port of its own where the environment names one: what the last report said,
and what became of the reports. What a device or an engine does not tell has no sample, never a zero."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from workers.config import ConfigError
from workers.contract import Device, DeviceSample, HostSample, NodeReport, Phase, ReplicaStatus
from workers.sleep import SleepReport
from workers.uplink import Answer

log = logging.getLogger(__name__)
NAME = "forebay_agent_"
REPORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
GPU, ENGINE = ("gpu", "uuid", "kind"), ("partition", "deployment", "role")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MHZ = 1e6
TOLD = tuple(phase for phase in Phase if phase not in (Phase.DOZING, Phase.WAKING))  # which no report says
# Field of a sample -> name, help and what it is multiplied by
GPU_FIGURES = {
    "utilization": ("gpu_utilization_ratio", "Share of time in which the GPU worked, 0 to 1", 1.0),
    "memory_used_bytes": ("gpu_memory_used_bytes", "Memory in use on the GPU", 1.0),
    "power_w": ("gpu_power_watts", "Power that the GPU draws", 1.0),
    "power_limit_w": ("gpu_power_limit_watts", "Most power that the GPU may draw", 1.0),
    "temperature_c": ("gpu_temperature_celsius", "Temperature of the GPU", 1.0),
    "sm_clock_mhz": ("gpu_sm_clock_hertz", "Clock of the GPU's multiprocessors", MHZ),
    "memory_clock_mhz": ("gpu_memory_clock_hertz", "Clock of the GPU's memory", MHZ),
    "ecc_uncorrected": ("gpu_ecc_uncorrected_errors", "Memory errors that could not be corrected", 1.0),
}
HOST_FIGURES = {
    "cpu_utilization": ("host_cpu_utilization_ratio", "Share of the host's CPU time in use, 0 to 1"),
    "memory_bytes": ("host_memory_bytes", "Memory of the host"),
    "memory_used_bytes": ("host_memory_used_bytes", "Memory in use on the host"),
    "disk_free_bytes": ("host_disk_free_bytes", "Free disk space where the models lie"),
}


class Figures(Collector):
    """`reported` is called by the reporter's thread, the rest by whoever reads."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        reports = Counter(
            NAME + "reports", "Reports to the control plane by what became of them", ["answer"], registry=own
        )
        self._answers = {answer: reports.labels(answer.replace(" ", "_")) for answer in Answer}
        self._seconds = Histogram(
            NAME + "report_duration_seconds", "Time to the answer of a report", buckets=REPORT_S, registry=own
        )
        self._taken_at = Gauge(
            NAME + "report_taken_timestamp_seconds", "When a report was last taken, unix time", registry=own
        )
        self._last: NodeReport | None = None
        own.register(self)

    def reported(self, report: NodeReport, answer: Answer, seconds: float) -> None:
        self._last = report
        self._answers[answer].inc()
        self._seconds.observe(seconds)
        if answer == Answer.OK:
            self._taken_at.set(time.time())

    def collect(self) -> Iterator[Metric]:
        if (report := self._last) is not None:
            yield from families(report)


class Listener:
    """Serves the figures to whoever asks, from a thread of its own, until closed."""

    def __init__(self, address: tuple[str, int], figures: Figures) -> None:
        """Raises ConfigError."""
        host, port = address
        try:
            self._server, self._thread = start_http_server(port, host, figures.registry)
        except OSError as error:
            raise ConfigError(f"FOREBAY_AGENT_METRICS: cannot listen on {host}:{port}: {error}") from error
        if host not in LOOPBACK:
            log.warning("anybody who reaches %s:%d can read the agent's figures", host, port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


def families(report: NodeReport) -> Iterator[Metric]:
    """What one report says."""
    info = {
        "version": report.agent_version,
        "engine_version": report.engine_version,
        "driver": report.driver,
        "simulated": str(report.simulated).lower(),
    }
    yield _gauge("info", "What this agent is", tuple(info), [(tuple(info.values()), 1.0)])
    yield _gauge("generation", "Generation of the spec that the agent holds", (), [((), float(report.generation))])
    yield _gauge("report_period_seconds", "How often the agent reports at present", (), [((), report.period_s)])
    yield from _host(report.host)
    yield from _gpus(report.devices, report.samples)
    yield from _engines(report.replicas)
    yield from _sleepers(report.sleep)


def _host(host: HostSample | None) -> Iterator[Metric]:
    for field, (name, text) in HOST_FIGURES.items():
        value = getattr(host, field, None)
        yield _gauge(name, text, (), [] if value is None else [((), float(value))])


def _gpus(devices: Iterable[Device], samples: Iterable[DeviceSample]) -> Iterator[Metric]:
    labels = {device.uuid: (str(device.index), device.uuid, device.kind.value) for device in devices}
    memory = [(labels[device.uuid], float(device.memory_bytes)) for device in devices]
    yield _gauge("gpu_memory_bytes", "Memory of the GPU", GPU, memory)
    known = [(labels[sample.uuid], sample) for sample in samples if sample.uuid in labels]
    for field, (name, text, scale) in GPU_FIGURES.items():
        values = [(of, float(value) * scale) for of, sample in known if (value := getattr(sample, field)) is not None]
        yield _gauge(name, text, GPU, values)
    healthy = [(of, float(sample.health == "ok")) for of, sample in known]
    yield _gauge("gpu_healthy", "1 while nothing is wrong with the GPU", GPU, healthy)
    throttled = [((*of, reason), 1.0) for of, sample in known for reason in _words(sample.throttle)]
    yield _gauge("gpu_throttled", "1 while the GPU's clocks are held down, by reason", (*GPU, "reason"), throttled)


def _engines(replicas: Iterable[ReplicaStatus]) -> Iterator[Metric]:
    known = [((str(one.partition), one.deployment, one.role.value), one) for one in replicas]
    phases = [((*of, phase.value), float(one.phase == phase)) for of, one in known for phase in TOLD]
    yield _gauge("engine_phase", "1 for the phase that the engine is in", (*ENGINE, "phase"), phases)
    restarts = [(of, float(one.restarts)) for of, one in known]
    yield _gauge("engine_restarts", "Starts in a row that ended without staying up", ENGINE, restarts)
    memory = [(of, float(one.memory_bytes)) for of, one in known if one.memory_bytes is not None]
    yield _gauge("engine_memory_bytes", "Memory of the engine's processes", ENGINE, memory)
    ready = [(of, one.ready_after_s) for of, one in known if one.ready_after_s is not None]
    yield _gauge("engine_start_seconds", "Time that the engine took from its start to ready", ENGINE, ready)
    woken = [(of, one.woken_after_s) for of, one in known if one.woken_after_s is not None]
    yield _gauge("engine_wake_seconds", "Time that the engine took from its last waking to ready", ENGINE, woken)


def _sleepers(sleep: SleepReport | None) -> Iterator[Metric]:
    known = [one for one in sleep.sleepers if not one.leaving] if sleep else []
    by_level = [((str(level),), float(sum(one.level == level for one in known))) for level in (1, 2)]
    yield _gauge("sleeping_engines", "Engines that sleep, by level", ("level",), by_level if sleep else [])
    held = [((), float(sleep.held_bytes))] if sleep else []
    yield _gauge("sleeping_host_memory_bytes", "Host memory that they count for", (), held)
    cap = [((), float(sleep.cap_bytes))] if sleep else []
    yield _gauge("sleeping_host_memory_cap_bytes", "What they may come to", (), cap)
    rests = [((), float(sum(one.gpu_bytes for one in sleep.sleepers)))] if sleep else []
    yield _gauge("sleeping_gpu_memory_bytes", "Memory of GPUs that they still hold", (), rests)


def _words(reasons: str) -> list[str]:
    return sorted({reason.strip() for reason in reasons.split(",") if reason.strip()})


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(NAME + name, text, labels=labels)
    for of, value in values:
        if math.isfinite(value):
            family.add_metric(of, value)
    return family
