"""Prefill and decode engines in virtual time whose numbers change while requests run: engines start for a while, finish
what they have before they go, and one that only changes its role is there a second later.

The engines follow measured laws (controlplane.domain.replay); they stand in for real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from controlplane.domain.replay import Engine, Engines, Job, Trace
from controlplane.domain.scaling import Load
from workers.contract import Role

Wish = Mapping[Role, int]  # engines
ROLES = (Role.PREFILL, Role.DECODE)


@dataclass(slots=True, eq=False)
class _One:
    """An engine of a role, there from `since` on, all in ms. `leaving`: it gets nothing new."""

    engine: Engine
    role: Role
    since: float
    hired: float
    leaving: bool = False

    def is_up(self, now: float) -> bool:
        return not self.leaving and self.since <= now


@dataclass(slots=True, eq=False)
class _Request:
    at: float
    isl: int
    osl: int
    transfer: float
    prompt: Job
    answer: Job | None = None

    @property
    def ttft_ms(self) -> float:
        assert self.answer is not None
        return self.answer.first - self.at

    @property
    def itl_ms(self) -> float:
        assert self.answer is not None
        return (self.answer.end - self.answer.first) / max(1, self.osl - 1)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the autoscaler sees at a look. p95 of the requests that ended since the last one and came after the last
    engine, None of none."""

    now_s: float
    count: Wish
    ready: Wish
    load: Mapping[Role, Load]
    ttft_ms: float | None
    itl_ms: float | None
    arrivals: int


@dataclass(frozen=True, slots=True)
class Played:
    """`gpu_hours`: of all engines from their start until they have gone. `flips`: engines that only changed their
    role. Times by request, in the order of the trace."""

    ttft_ms: np.ndarray
    itl_ms: np.ndarray
    gpu_hours: float
    starts: int
    flips: int

    def met(self, ttft_ms: float, itl_ms: float) -> float:
        return float(((self.ttft_ms <= ttft_ms) & (self.itl_ms <= itl_ms)).mean())


@dataclass(slots=True)
class Site:
    """`kinds`: how an engine of a role is set up; `tp` its GPUs. `start_s`: from being wanted to being ready."""

    trace: Trace
    kinds: Mapping[Role, Engines]
    tp: int
    start_s: float
    flip_s: float = 1.0
    transfer_ms_per_token: float = 0.0
    _engines: list[_One] = field(default_factory=list)
    _requests: list[_Request] = field(default_factory=list)
    _prompts: list[_Request] = field(default_factory=list)  # in prefill
    _answers: list[_Request] = field(default_factory=list)  # in decode
    _gpu_ms: float = 0.0
    _starts: int = 0
    _flips: int = 0

    def play(self, first: Wish, decide: Callable[[Seen], Wish], every_s: float = 60.0) -> Played:
        """`first` are there when it begins. `decide` is asked each `every_s` seconds."""
        for role in ROLES:
            self._engines += [self._new(role, 0.0, 0.0) for _ in range(first[role])]
        now, place, end = 0.0, 0, float(self.trace.at_ms[-1])
        while now <= end or self._prompts or self._answers:
            now, since = now + every_s * 1000.0, place
            while place < len(self.trace) and self.trace.at_ms[place] < now:
                self._arrive(place)
                place += 1
            self._advance(now)
            self._change(decide(self._look(now, place - since)), now)
        for one in self._engines:
            self._let_go(one, now)
        return Played(
            np.array([one.ttft_ms for one in self._requests]), np.array([one.itl_ms for one in self._requests]),
            self._gpu_ms / 3.6e6 * self.tp, self._starts, self._flips,
        )  # fmt: skip

    def _new(self, role: Role, now: float, wait_s: float) -> _One:
        return _One(self.kinds[role].one(), role, now + wait_s * 1000.0, now)

    def _arrive(self, place: int) -> None:
        at, isl, osl = float(self.trace.at_ms[place]), int(self.trace.isl[place]), int(self.trace.osl[place])
        request = _Request(at, isl, osl, self.transfer_ms_per_token * isl, Job(at, isl, isl, 1))
        self._give(Role.PREFILL, request.prompt)
        self._requests.append(request)
        self._prompts.append(request)

    def _give(self, role: Role, job: Job) -> None:
        """To the engine with the fewest in flight, as at the gateway; while none is up, to the first that will be."""
        own = [one for one in self._engines if one.role is role and not one.leaving]
        up = [one for one in own if one.is_up(job.at)]
        for one in up:
            one.engine.advance(job.at)
        chosen = min(up, key=lambda one: one.engine.in_flight) if up else min(own, key=lambda one: one.since)
        job.at = max(job.at, chosen.since)
        chosen.engine.give(job)

    def _advance(self, now: float) -> None:
        """Prefill first: what it ends by then goes to decode in the order that its KV arrives."""
        for one in self._engines:
            if one.role is Role.PREFILL:
                one.engine.advance(now)
        done = [one for one in self._prompts if one.prompt.first and one.prompt.first + one.transfer < now]
        self._prompts = _without(self._prompts, done)
        for request in sorted(done, key=lambda one: one.prompt.first + one.transfer):
            request.answer = Job(request.prompt.first + request.transfer, 0, request.isl, request.osl)
            self._give(Role.DECODE, request.answer)
            self._answers.append(request)
        for one in self._engines:
            if one.role is Role.DECODE:
                one.engine.advance(now)

    def _look(self, now: float, arrivals: int) -> Seen:
        ended = [one for one in self._answers if one.answer is not None and 0.0 < one.answer.end <= now]
        self._answers = _without(self._answers, ended)
        count = {role: [one for one in self._engines if one.role is role and not one.leaving] for role in ROLES}
        ready = {role: [one for one in own if one.is_up(now)] for role, own in count.items()}
        complete = max((one.since for own in ready.values() for one in own), default=0.0)
        told = [one for one in ended if one.at >= complete]
        return Seen(
            now / 1000.0,
            {role: len(own) for role, own in count.items()},
            {role: len(own) for role, own in ready.items()},
            {role: _load(own) for role, own in ready.items()},
            _p95([one.ttft_ms for one in told]),
            _p95([one.itl_ms for one in told]),
            arrivals,
        )

    def _change(self, wish: Wish, now: float) -> None:
        """Roles that have too many give to those that lack; then engines start, or go once they have nothing left."""
        own = {role: [one for one in self._engines if one.role is role and not one.leaving] for role in ROLES}
        lacking = {role: wish[role] - len(own[role]) for role in ROLES}
        for role in ROLES:
            spare = sorted(own[role], key=lambda one: (one.since <= now, one.engine.in_flight))
            for one in spare[: max(0, -lacking[role])]:
                one.leaving = True
                other = ROLES[1 - ROLES.index(role)]
                if lacking[other] > 0:
                    lacking[other] -= 1
                    self._flip(one, other, now)
        for role in ROLES:
            for _ in range(max(0, lacking[role])):
                self._engines.append(self._new(role, now, self.start_s))
                self._starts += 1
        for one in [one for one in self._engines if one.leaving and not one.engine.in_flight]:
            self._let_go(one, now)
            self._engines.remove(one)

    def _flip(self, one: _One, role: Role, now: float) -> None:
        """The same GPUs, whose hours are counted once: what it has in its old role it ends beside the new one. That the
        two slow each other meanwhile is left out."""
        self._engines.append(self._new(role, now, self.flip_s))
        self._let_go(one, now)
        one.hired = math.inf
        self._flips += 1

    def _let_go(self, one: _One, now: float) -> None:
        self._gpu_ms += max(0.0, now - one.hired)


def _without(requests: list[_Request], gone: list[_Request]) -> list[_Request]:
    left = {id(one) for one in gone}
    return [one for one in requests if id(one) not in left] if left else requests


def _load(own: list[_One]) -> Load:
    if not own:
        return Load()
    waiting = sum(len(one.engine.waiting) for one in own)
    full = max(one.engine.reserved / one.engine.room for one in own)
    return Load(float(sum(one.engine.in_flight for one in own) - waiting), float(waiting), min(1.0, full))


def _p95(values: list[float]) -> float | None:
    return float(np.quantile(values, 0.95)) if values else None
