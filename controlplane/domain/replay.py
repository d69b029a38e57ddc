"""Requests of a trace, replayed through engines that follow a profile's laws, step by step. Pure.

An engine fills a step with the sequences it decodes and with waiting prompts up to its budget of tokens, first come
first served; a prompt longer than what is left goes on in the next step (chunked prefill). A request comes to the
engine with the fewest in flight, as at the gateway. KV of a whole request is reserved when it begins: no preemption.
Between two events the batch of an engine does not change: such steps are taken in one go, an hour in a second.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.profiles import DecodeLaw, PrefillLaw, Speed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_STEPS = 256  # taken in one go


@dataclass(frozen=True, slots=True)
class Trace:
    """By request in order of arrival: milliseconds, tokens of the prompt and of the answer (at least 1)."""

    at_ms: Floats
    isl: Ints
    osl: Ints

    @classmethod
    def of(cls, at_s: Iterable[float], isl: Iterable[int], osl: Iterable[int]) -> Trace:
        at = np.array(list(at_s), float) * 1000.0
        order = np.argsort(at, kind="stable")
        prompts = np.maximum(1, np.array(list(isl), np.int64))
        answers = np.maximum(1, np.array(list(osl), np.int64))
        return cls(at[order], prompts[order], answers[order])

    def between(self, since_s: float, until_s: float) -> Trace:
        """Those that arrive in [since_s, until_s)."""
        mine = (self.at_ms >= since_s * 1000.0) & (self.at_ms < until_s * 1000.0)
        return Trace(self.at_ms[mine], self.isl[mine], self.osl[mine])

    def faster(self, factor: float) -> Trace:
        """The same bursts, `factor` times as many requests a second."""
        return Trace(self.at_ms / factor, self.isl, self.osl)

    def longer(self, isl: float, osl: float, most: int | None = None) -> Trace:
        """The same requests, their prompts and answers so many times as long. `most`: tokens that an engine takes of
        both together, of which prompts get theirs first; None: not known, and none becomes longer than the longest was,
        or than the mean becomes. What was longer already stays so."""
        prompts = _grown(self.isl, isl, None if most is None else most - self.osl)
        return Trace(self.at_ms, prompts, _grown(self.osl, osl, None if most is None else most - prompts))

    def at_rate(self, rate_per_s: float) -> Trace:
        """The same bursts at so many requests a second on the mean. Of two requests at least."""
        return self.faster(rate_per_s * float(self.at_ms[-1] - self.at_ms[0]) / 1000.0 / (len(self) - 1))

    def __len__(self) -> int:
        return len(self.at_ms)


@dataclass(frozen=True, slots=True)
class Engines:
    """`count` alike. `budget`: max_num_batched_tokens; `batch`: max_num_seqs. `slower`: what matching the two phases
    leaves of an isolated engine's rate."""

    speed: Speed
    count: int
    budget: int
    batch: int
    slower: float = 1.0

    def one(self) -> Engine:
        """An idle one of them."""
        law = self.speed
        batches = range(self.batch + 2)
        bends = np.interp(batches, law.decode.law.sizes, law.decode.law.ratio).tolist() if law.decode.law.sizes else ()
        return Engine(law.prefill.law, law.decode.law, self.budget, self.batch, law.kv_tokens, self.slower, bends)


@dataclass(frozen=True, slots=True)
class Outcome:
    """By request, in the order of the trace: milliseconds to the first token, and from one token to the next on the
    mean (0 where there is but one)."""

    ttft_ms: Floats
    itl_ms: Floats

    def met(self, ttft_ms: float, itl_ms: float) -> float:
        """The share of requests within both, 0..1; 1 of none."""
        within = (self.ttft_ms <= ttft_ms) & (self.itl_ms <= itl_ms)
        return float(within.mean()) if len(within) else 1.0


def aggregated(trace: Trace, engines: Engines) -> Outcome:
    """Both phases in each engine."""
    done = _run(_jobs(trace.at_ms, trace.isl, trace.isl, trace.osl), engines)
    return _outcome(trace, done)


def prefill(trace: Trace, engines: Engines) -> Floats:
    """When each prompt is done, ms."""
    jobs = _jobs(trace.at_ms, trace.isl, trace.isl, np.ones_like(trace.osl))
    _run(jobs, engines)
    return np.array([job.first for job in jobs])


def disaggregated(
    trace: Trace, prefilled_ms: Floats, decoders: Engines, *, transfer_ms_per_token: float = 0.0
) -> Outcome:
    """From what `prefill` said. The first token is counted when the decode engine gives it, as clients see it."""
    ready = prefilled_ms + transfer_ms_per_token * trace.isl
    order = np.argsort(ready, kind="stable")
    jobs = _jobs(ready[order], np.zeros_like(trace.isl), trace.isl[order], trace.osl[order])
    _run(jobs, decoders)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return _outcome(trace, [jobs[int(place)] for place in back])


@dataclass(slots=True)
class Job:
    """One request at an engine, times in ms. `left`: tokens of the prompt that are still to be computed."""

    at: float
    left: int
    isl: int
    osl: int
    first: float = 0.0
    end: float = 0.0


@dataclass(slots=True)
class Engine:
    """One engine, to be advanced as time goes by. `steps` counts those that gave every sequence a token, so that a
    sequence ends at a known one. `bends`: the decode law's, by sequences; () is none."""

    prefill: PrefillLaw
    decode: DecodeLaw
    budget: int
    batch: int
    room: int
    slower: float
    bends: Sequence[float] = ()
    now: float = 0.0
    steps: int = 0
    context: int = 0  # tokens of all sequences
    reserved: int = 0
    waiting: deque[Job] = field(default_factory=deque)
    running: list[tuple[int, int, Job]] = field(default_factory=list)
    fresh: list[Job] = field(default_factory=list)  # have no token yet
    partial: Job | None = None
    serial: int = 0

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.running) + (self.partial is not None)

    def give(self, job: Job) -> None:
        if not self.in_flight:
            self.now = max(self.now, job.at)
        self.waiting.append(job)

    def advance(self, until: float) -> None:
        """Every step that begins before `until`; the last one may end after it."""
        while self.now < until and self.in_flight:
            tokens, context, ended = self._fill()
            if tokens:
                self._mixed(tokens, context, ended)
            else:
                self._decode(until)
            self._leave()

    def _fill(self) -> tuple[int, float, list[Job]]:
        """Prompts of the next step: tokens, their mean context, and the prompts that end with it."""
        left, weighed, tokens = self.budget - len(self.running), 0.0, 0
        ended: list[Job] = []
        while tokens < left:
            job = self.partial or self._admit(len(ended))
            if job is None:
                break
            take = min(job.left, left - tokens)
            if take == 0:
                self._join(job)
                continue
            job.left -= take
            tokens, weighed = tokens + take, weighed + take * job.isl
            self.partial = job if job.left else None
            if not job.left:
                ended.append(job)
        return tokens, weighed / tokens if tokens else 0.0, ended

    def _admit(self, joining: int) -> Job | None:
        if not self.waiting or self.waiting[0].at > self.now:
            return None
        needs = self.waiting[0].isl + self.waiting[0].osl
        full = len(self.running) + joining >= self.batch or self.reserved + needs > self.room
        if full and (self.running or joining):
            return None  # one that no empty engine has room for is run alone rather than never
        self.reserved += needs
        return self.waiting.popleft()

    def _mixed(self, tokens: int, context: float, ended: list[Job]) -> None:
        """Weights are read once, for prompts and sequences together; each sequence has its own context to read."""
        size = len(self.running)
        whole = tokens + size
        together, bend = self.prefill.step_ms(whole, context * tokens / whole), self._bend(size)
        least = bend * (self.decode.o + size * self.decode.u) if size else 0.0
        self._pass(max(together, least) + bend * self.decode.v * self.context, 1)
        for job in ended:
            job.first = self.now
            self._join(job, begun=True)

    def _decode(self, until: float) -> None:
        """k steps of B sequences take k ITL and v B k (k - 1) / 2 more, for every step adds B tokens of context."""
        if not self.running:
            self.now = max(self.now, self.waiting[0].at)
            return
        size = len(self.running)
        bend = self._bend(size)
        one = bend * (self.decode.o + size * self.decode.u + self.decode.v * self.context)
        ahead = int(min((until - self.now) * self.slower / one, MOST_STEPS))
        steps = 1 if self.fresh else max(1, min(self.running[0][0] - self.steps, ahead))
        self._pass(steps * one + bend * self.decode.v * size * steps * (steps - 1) / 2.0, steps)

    def _bend(self, size: int) -> float:
        return self.bends[size] if self.bends else 1.0

    def _pass(self, took: float, steps: int) -> None:
        self.now += took / self.slower
        self.steps += steps
        self.context += steps * len(self.running)
        for job in self.fresh:
            job.first = self.now
        self.fresh.clear()

    def _join(self, job: Job, *, begun: bool = False) -> None:
        if not begun:
            self.fresh.append(job)
        self.serial += 1
        self.context += job.isl + begun
        heapq.heappush(self.running, (self.steps + job.osl - begun, self.serial, job))

    def _leave(self) -> None:
        while self.running and self.running[0][0] <= self.steps:
            _, _, job = heapq.heappop(self.running)
            job.end = self.now
            self.context -= job.isl + job.osl
            self.reserved -= job.isl + job.osl


def _grown(tokens: Ints, factor: float, room: Ints | None) -> Ints:
    if not len(tokens):
        return tokens
    most = max(float(tokens.max()), math.ceil(tokens.mean() * factor)) if room is None else np.maximum(tokens, room)
    grown: Floats = np.rint(np.minimum(tokens * factor, most))
    return np.maximum(1, grown.astype(np.int64))


def _jobs(at: Floats, left: Ints, isl: Ints, osl: Ints) -> list[Job]:
    return [Job(*row) for row in zip(at.tolist(), left.tolist(), isl.tolist(), osl.tolist(), strict=True)]


def _run(jobs: Sequence[Job], engines: Engines) -> Sequence[Job]:
    fleet = [engines.one() for _ in range(engines.count)]
    for job in jobs:
        for engine in fleet:
            engine.advance(job.at)
        min(fleet, key=lambda engine: engine.in_flight).give(job)
    for engine in fleet:
        engine.advance(math.inf)
    return jobs


def _outcome(trace: Trace, jobs: Sequence[Job]) -> Outcome:
    first = np.array([job.first for job in jobs])
    end = np.array([job.end for job in jobs])
    gaps = np.maximum(1, trace.osl - 1)
    return Outcome(first - trace.at_ms, np.where(trace.osl > 1, (end - first) / gaps, 0.0))
