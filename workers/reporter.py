"""Reports what runs, in a thread of its own, and does what the answers ask for."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping

from msgspec import structs

from workers import __version__, excerpts
from workers.agent import Agent
from workers.book import Record, clock
from workers.config import Config
from workers.contract import (
    EngineSample,
    Exit,
    LogWanted,
    NodeReport,
    Phase,
    ReplicaSpec,
    ReplicaStatus,
    ReportReply,
)
from workers.engines import Engine
from workers.engines.metrics import HISTOGRAMS
from workers.exposition import Figures
from workers.logs import Logs
from workers.probes import Probe, Prober
from workers.sampler import Sampler
from workers.store.fetcher import Fetcher
from workers.store.keeper import Keeper
from workers.uplink import Answer, Outcome, Uplink
from workers.view import View

log = logging.getLogger(__name__)
MIN_PERIOD_S, MAX_PERIOD_S = 0.2, 60.0
SOONEST_S = 0.1  # between two reports, however much changes
UNREACHABLE_CAP_S = 5.0
UNKNOWN_TOKEN_S = 30.0
REVOKED_S = 5.0
CONFLICT_S = 15.0  # so long another agent must be reporting as this node before this one leaves
HISTOGRAMS_EVERY_S = 4.5  # they are most of an engine's figures, and windows of 10 s are made of them
TOLD_AS = {Phase.DOZING: Phase.STOPPING, Phase.WAKING: Phase.STARTING}
SILENT_S = 10.0  # a ready engine that has not answered for so long is told of


class Reporter:
    def __init__(
        self,
        config: Config,
        agent: Agent,
        uplink: Uplink,
        *,
        sampler: Sampler,
        prober: Prober,
        logs: Logs,
        engines: Mapping[str, Engine],
        keeper: Keeper,
        fetcher: Fetcher,
        simulated: bool,
    ) -> None:
        self._config, self._agent, self._uplink = config, agent, uplink
        self._sampler, self._prober, self._logs, self._engines, self._simulated = (
            sampler,
            prober,
            logs,
            engines,
            simulated,
        )
        self._keeper, self._mark_taken = keeper, ""  # mark of the weights that an answer has taken in
        self._fetcher = fetcher
        self._boot = uuid.uuid4().hex
        self._seq = time.time_ns() // 1_000_000  # goes on from the last agent process's
        self._period_s = config.period_s
        self._wanted: tuple[LogWanted, ...] = ()
        self._failures = 0
        self._told_at = 0.0
        self._histograms_at: dict[int, float] = {}  # when a partition's were last in a report
        self._last: Answer | None = None
        self._conflict_since: float | None = None
        self._wake, self._done = threading.Event(), threading.Event()
        self.figures = Figures()
        self.conflict = threading.Event()  # another agent has this identity, and keeps it

    def run(self) -> None:
        while not self._done.is_set():
            try:
                pause = self._once()
            except Exception:
                log.exception("reporting failed")
                pause = UNREACHABLE_CAP_S
            self._rest(pause)

    def soon(self) -> None:
        """Something changed that the control plane should hear of before the period ends."""
        self._wake.set()

    def stop(self) -> None:
        self._done.set()
        self._wake.set()

    def _rest(self, pause: float) -> None:
        if self._last != Answer.OK:
            self._done.wait(pause)  # told to slow down, or nobody there: a change is no reason to hurry
            return
        self._wake.wait(pause)
        self._wake.clear()
        # Changes that come together are told together; one that comes alone at once: somebody may wait for an engine.
        self._done.wait(max(0.0, self._told_at + SOONEST_S - clock()))

    def _once(self) -> float:
        self._told_at = clock()
        report, began = self.build(self._told_at), time.perf_counter()
        outcome = self._uplink.report(report)
        self.figures.reported(report, outcome.answer, time.perf_counter() - began)
        if outcome.answer != self._last:
            level = logging.INFO if outcome.answer == Answer.OK else logging.WARNING
            log.log(level, "control plane: %s %s", outcome.answer, outcome.detail)
        self._last = outcome.answer
        if outcome.answer == Answer.OK and outcome.reply:
            self._mark_taken = "" if outcome.reply.weights else report.weights_mark
        return self._take(outcome, clock())

    def _take(self, outcome: Outcome, now: float) -> float:
        """Does what the answer asks for; how long to wait until the next report."""
        if outcome.answer != Answer.CONFLICT:
            self._conflict_since = None
        if outcome.answer != Answer.UNREACHABLE:
            self._failures = 0
        match outcome.answer:
            case Answer.OK if outcome.reply:
                return self._taken(outcome.reply)
            case Answer.SLOW_DOWN:
                return max(self._period_s, outcome.wait_s or UNREACHABLE_CAP_S)
            case Answer.UNKNOWN_TOKEN:
                return UNKNOWN_TOKEN_S
            case Answer.REVOKED:
                self._agent.retire()
                return REVOKED_S
            case Answer.CONFLICT:
                return self._conflicting(now)
            case Answer.REFUSED:
                self._wanted = ()
                return UNREACHABLE_CAP_S
        self._failures += 1
        return float(min(UNREACHABLE_CAP_S, self._period_s * 2 ** min(self._failures - 1, 8)))

    def _taken(self, reply: ReportReply) -> float:
        self._agent.pause(False)
        if reply.period_s is not None:
            self._period_s = min(MAX_PERIOD_S, max(MIN_PERIOD_S, reply.period_s))
        pause = SOONEST_S if excerpts.is_new(reply.logs, self._wanted) else self._period_s  # somebody waits for it
        self._wanted = reply.logs[: excerpts.MOST]
        if reply.spec is not None and self._agent.submit(reply.spec):
            self._wake.set()
        return pause

    def _conflicting(self, now: float) -> float:
        self._agent.pause(True)
        self._conflict_since = self._conflict_since or now
        if now - self._conflict_since >= CONFLICT_S:
            self.conflict.set()
        return self._period_s

    # --- what is reported --------------------------------------------------------------------------------

    def build(self, now: float) -> NodeReport:
        self._seq += 1
        view, reading = self._agent.view, self._sampler.fresh(now)
        latest, (mark, weights) = self._sampler.latest, self._keeper.latest
        return NodeReport(
            node=self._config.node,
            instance=self._config.instance,
            boot=self._boot,
            seq=self._seq,
            at=time.time(),
            generation=view.generation,
            period_s=self._period_s,
            agent_version=__version__,
            engine_version=self._engines["vllm"].version(),
            driver=latest.driver[:256],
            simulated=self._simulated,
            devices=latest.devices,
            samples=reading.samples if reading else (),
            host=reading.host if reading else None,
            replicas=self._replicas(view, now),
            logs=excerpts.of(self._wanted, view.records, self._logs, self._agent.secrets(), now),
            qualifications=view.qualifications,
            weights_mark=mark,
            weights=weights if mark != self._mark_taken else None,
            fetch=self._fetcher.latest,
            sleep=view.sleep,
        )

    def _replicas(self, view: View, now: float) -> tuple[ReplicaStatus, ...]:
        found = [self._status(record, view, now) for record in view.records]
        known = {record.partition for record in view.records}
        waiting = [_waiting(spec, why) for partition, (spec, why) in view.waits.items() if partition not in known]
        return tuple(sorted([*found, *waiting], key=lambda status: status.partition))

    def _status(self, record: Record, view: View, now: float) -> ReplicaStatus:
        replica, spec = record.replica, record.replica.spec
        probe = self._prober.latest(record)
        return ReplicaStatus(
            partition=spec.partition,
            deployment=spec.deployment,
            role=spec.role,
            generation=spec.generation,
            phase=TOLD_AS.get(replica.phase, replica.phase),
            phase_age_s=max(0.0, now - replica.since),
            pid=record.process.pid if record.is_live and record.process else 0,
            endpoint=record.url(self._config.address) if record.is_live else "",
            restarts=replica.restarts,
            ready_after_s=record.ready_after_s,
            woken_after_s=record.woken_after_s,
            memory_bytes=self._sampler.latest.memory.get(spec.partition),
            engine_version=record.engine_version,
            message=_message(record, view, probe, now)[:256],
            last_exit=_last_exit(record, now),
            sample=self._sample(record, probe, now),
        )

    def _sample(self, record: Record, probe: Probe | None, now: float) -> EngineSample | None:
        if not record.is_live or probe is None or probe.sample is None or now - probe.begun > SILENT_S:
            return None
        if now - self._histograms_at.get(record.partition, 0.0) < HISTOGRAMS_EVERY_S:
            return structs.replace(probe.sample, **dict.fromkeys(HISTOGRAMS))
        self._histograms_at[record.partition] = now
        return probe.sample


def _waiting(spec: ReplicaSpec, reason: str) -> ReplicaStatus:
    return ReplicaStatus(
        partition=spec.partition,
        deployment=spec.deployment,
        role=spec.role,
        generation=spec.generation,
        phase=Phase.EXITED,
        message=reason[:256],
    )


def _message(record: Record, view: View, probe: Probe | None, now: float) -> str:
    """What a person should know beside the phase."""
    if record.replica.phase == Phase.EXITED:
        _, why = view.waits.get(record.partition, (None, ""))
        return "; ".join(filter(None, [record.message, why]))
    if record.replica.phase in TOLD_AS:
        return f"{'wakes from' if record.replica.phase == Phase.WAKING else 'goes to sleep at'} level {record.level}"
    if record.replica.phase == Phase.READY:
        answered = max(record.replica.since, (probe.answered if probe else None) or 0.0)
        if now - answered > SILENT_S:
            return f"has not answered for {now - answered:.0f} s"
    return ""


def _last_exit(record: Record, now: float) -> Exit | None:
    if record.ended is None:
        return None
    return Exit(code=record.ended.code, ago_s=max(0.0, now - record.ended.at), log_tail=record.ended.log_tail)
