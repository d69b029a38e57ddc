"""Plays a log through a simulated fleet, moment by moment, and looks at what is left of it. Imported once Django is set
up."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import psutil

from bench._pool_site import Agents, Gateway, Held, moment
from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests, runs
from controlplane.fleet.models import Activation, Deployment, GatewayBeat, Partition, PoolAim, PoolHint, PoolUse
from controlplane.fleet.services import pool
from controlplane.fleet.services.waking import OPEN
from controlplane.planning import habits, keeping, pooling, standing
from controlplane.planning.forecasting import PACES, Forecasting
from tests.factories import make_model

ACTOR = Actor.system("bench")
SERVICE_S = 2.0  # of a request, on which the trace is silent
LOOK_S, PLAN_S, ASK_S, AGENT_S, MINUTE_S = 60.0, 600.0, 5.0, 1.0, 60.0
AFTER_S = 1200.0  # played on without requests, so that everything comes to its end
STAGE_S = 3600.0  # after each it tells how far it is, and may end
LATE_S = 1.0  # a slot that came later than that was waited for
TIMED = 40  # calls with the whole fleet in the pool


@dataclass(slots=True)
class Run:
    requests: Requests
    nodes: int
    gpus: int
    start: float
    end: float
    keep_alive_s: float
    most_s: float  # of the machine's time; what is played by then is told
    agents: Agents = field(init=False)
    gateway: Gateway = field(init=False)
    waits_s: list[float] = field(default_factory=list)  # of the first request of each that was held
    sweep_ms: list[float] = field(default_factory=list)  # CPU, as are all times of decisions
    plan_s: list[float] = field(default_factory=list)
    rss_mb: list[int] = field(default_factory=list)
    slot_s: float = 0.0
    most_slots: int = 0
    left: dict[str, Any] = field(default_factory=dict)
    full: dict[str, float] = field(default_factory=dict)  # latencies with every GPU a slot
    _in_pool: set[int] = field(default_factory=set)
    _last_use: dict[str, float] = field(default_factory=dict)  # infinity: in flight
    _running: Counter[str] = field(default_factory=Counter)
    _events: list[tuple[float, int, str, str]] = field(default_factory=list)
    _ids: count[int] = field(default_factory=count)
    _slots_at: float = 0.0
    _forecasting: Forecasting = field(init=False)
    _served_is_old: bool = True
    _stepping_at: float = np.inf
    _began: float = 0.0

    def __post_init__(self) -> None:
        self._slots_at = self.start
        before = self.requests.within(0.0, self.start)
        keeping.save_import(before, actor=ACTOR, now=self.start, spans=[(float(before.at.min()), self.start)])
        self.agents, self.gateway = Agents(self.nodes, self.gpus, self.start), Gateway()
        for name in self.requests.models:
            Deployment.objects.create(name=name, model=make_model(f"weights-of-{name}"), mode="pooled")
        self._forecasting = Forecasting(paces={600: PACES[600]})  # the horizon that the pool is held by

    # The clock

    def play(self) -> None:
        self._began = time.monotonic()
        played = self.requests.within(self.start, self.end)
        names = played.models
        for kind, at in (("plan", self.start), ("look", self.start), ("minute", self.start + MINUTE_S)):
            self._at(at, kind)
        self._at(self.start + STAGE_S, "stage")
        arrivals = zip(played.model.tolist(), played.at.tolist(), played.until.tolist(), strict=True)
        coming = next(arrivals, None)
        while self._events or coming:
            if coming is not None and coming[1] > self.end:
                coming = None
            if coming is not None and (not self._events or coming[1] <= self._events[0][0]):
                self._come(names[coming[0]], coming[1], coming[2])
                coming = next(arrivals, None)
                continue
            now, _, kind, name = heapq.heappop(self._events)
            if now > self.end + AFTER_S:
                break
            getattr(self, f"_{kind}")(now, name)
        self._count_slots(self.end)
        self.left = self._leaks()
        self._try_full(self.end + AFTER_S)

    def _at(self, at: float, kind: str, name: str = "") -> None:
        heapq.heappush(self._events, (at, next(self._ids), kind, name))

    # What happens

    def _come(self, name: str, now: float, until: float) -> None:
        self._running[name] += 1
        self._last_use[name] = np.inf
        if self._served_is_old:
            self._see(now)
        is_first = name not in self.gateway.held
        if self.gateway.come(name, now, until):
            self._at(max(now, until) + SERVICE_S, "done", name)
        elif is_first:
            self._ask(now, name)

    def _done(self, now: float, name: str) -> None:
        self.gateway.end(name, now)
        self._running[name] -= 1
        if not self._running[name]:
            self._last_use[name] = now

    def _ask(self, now: float, name: str) -> None:
        """Of one that has just come, or (without a name) of all that are held; then again after a while."""
        if name and name not in self.gateway.held:
            return
        self._before(now)
        self.gateway.ask([name] if name else list(self.gateway.held), now)
        self._grow(self.gateway.waiting(), now)
        self._changed(now)
        if name:
            self._at(now + ASK_S, "ask", name)

    def _agent(self, now: float, _: str) -> None:
        """All agents that have something to say report."""
        self._stepping_at = np.inf
        self._before(now)
        self.agents.look(now)
        self.agents.step(now)
        self._see(now)
        if (at := self.agents.next_at()) is not None:
            self._step(at)

    def _look(self, now: float, _: str) -> None:
        self._before(now)
        began = time.process_time()
        pooling.look(moment(now))
        self.sweep_ms.append((time.process_time() - began) * 1e3)
        self._size(now)
        self._changed(now)
        self._at(now + LOOK_S, "look")

    def _plan(self, now: float, _: str) -> None:
        """What planning.tasks does each minute, when something is due of it."""
        self.gateway.record(now)
        began = time.process_time()
        keeping.note_recorded(now)
        self._forecasting.tick(now)
        standing.refresh(now)
        habits.refresh(now)
        self.plan_s.append(time.process_time() - began)
        self._at(now + PLAN_S, "plan")

    def _minute(self, now: float, _: str) -> None:
        self.gateway.record(now)
        keeping.note_recorded(now)
        self._at(now + MINUTE_S, "minute")

    def _stage(self, now: float, _: str) -> None:
        self.rss_mb.append(round(psutil.Process().memory_info().rss / 2**20))
        day, spent = (now - self.start) / 86_400, time.monotonic() - self._began
        print(f"  day {day:.3f}: {len(self._in_pool)} slots, {self.rss_mb[-1]} MB, {spent:.0f} s", flush=True)
        pool.prune(moment(now))
        if spent > self.most_s:
            self.end = min(self.end, now)
        self._at(now + STAGE_S, "stage")

    # How

    def _before(self, now: float) -> None:
        self.agents.hear(now)
        self.gateway.tell(now)

    def _changed(self, now: float) -> None:
        """A service may have published: routing is read anew, and agents hear of it with their next reports."""
        self._served_is_old = True
        self._step(float(np.floor(now)) + AGENT_S)

    def _step(self, at: float) -> None:
        if at < self._stepping_at:
            self._stepping_at = at
            self._at(at, "agent")

    def _see(self, now: float) -> None:
        self._served_is_old = False
        for name, held in self.gateway.look():
            self._release(name, held, now)

    def _release(self, name: str, held: Held, now: float) -> None:
        self.waits_s.append(now - held.bursts[0][0])
        for _, until in held.bursts:
            self._at(max(now, until) + SERVICE_S, "done", name)

    # The pool's size

    def _size(self, now: float) -> None:
        """As many as are wanted, or active; only empty slots are taken back."""
        wanted = PoolAim.objects.values_list("slots", flat=True).first() or 0
        active = sum(now - at < self.keep_alive_s for at in self._last_use.values())
        held = max(wanted, active)
        self._grow(held - len(self._in_pool), now)
        empty = Partition.objects.filter(pool=True, deployment__isnull=True, phase="").order_by("-pk")
        surplus = len(self._in_pool) - held
        for partition in empty.values_list("pk", flat=True)[: max(0, surplus)]:
            self._set(partition, False, now)

    def _grow(self, more: int, now: float) -> None:
        if more <= 0:
            return
        spare = Partition.objects.filter(pool=False, deployment__isnull=True, phase="").order_by("name", "pk")
        for partition in spare.values_list("pk", flat=True)[:more]:
            self._set(partition, True, now)

    def _set(self, partition: int, is_slot: bool, now: float) -> None:
        self._count_slots(now)
        pool.set_pool(partition, pool=is_slot, actor=ACTOR, reason="as many as are wanted")
        (self._in_pool.add if is_slot else self._in_pool.discard)(partition)
        if now <= self.end:
            self.most_slots = max(self.most_slots, len(self._in_pool))

    def _count_slots(self, now: float) -> None:
        self.slot_s += len(self._in_pool) * max(0.0, min(now, self.end) - min(self._slots_at, self.end))
        self._slots_at = now

    # What came of it

    def _try_full(self, now: float) -> None:
        """The time that decisions take with every GPU a slot: looks, and then models that are asked for one by one."""
        self._grow(self.nodes * self.gpus, now)
        asleep = Deployment.objects.filter(partitions__isnull=True).order_by("name")
        names = list(asleep.values_list("name", flat=True)[:TIMED])
        gateway, sweeps = Gateway(), []
        for place in range(TIMED):
            self._before(now + place)
            began = time.process_time()
            pooling.look(moment(now + place))
            sweeps.append((time.process_time() - began) * 1e3)
        for place, name in enumerate(names, TIMED):
            self._before(now + place)
            gateway.come(name, now + place, now + place)
            gateway.ask([name], now + place)
        for key, values in (("wake", gateway.wake_ms), ("sweep", sweeps)):
            self.full |= {f"{key}_p50_ms": _quantile(values, 0.5), f"{key}_p99_ms": _quantile(values, 0.99)}

    def found(self) -> dict[str, Any]:
        """Of the activations that the log has at the keep-alive in force."""
        active = runs(self.requests, self.keep_alive_s)
        begun = int(((active.start >= self.start) & (active.start < self.end)).sum())
        mine = Activation.objects.filter(asked_at__lt=moment(self.end))
        asked = mine.filter(cause=Activation.Cause.REQUEST)
        waited = evicting = 0
        for asked_at, placed_at, evicted in asked.values_list("asked_at", "placed_at", "evicted"):
            is_late = placed_at is None or (placed_at - asked_at).total_seconds() > LATE_S
            waited, evicting = waited + is_late, evicting + (bool(evicted) and not is_late)
        return {
            "activations": begun,
            "woken": asked.count(),
            "woken_ahead": mine.count() - asked.count(),
            "cold": round((waited + evicting) / max(1, begun), 5),
            "waited_for_a_slot": waited,
            "another_had_to_leave": evicting,
            "failed": mine.filter(state=Activation.State.FAILED).count(),
            "given_up": mine.filter(state=Activation.State.GIVEN_UP).count(),
            "most_slots": self.most_slots,
            "reports": self.agents.reports,
        }

    def _leaks(self) -> dict[str, Any]:
        """What is still there when nothing has been asked for a while, and how much of it."""
        there = self.agents.residents()
        desired = dict(Partition.objects.filter(deployment__isnull=False).values_list("pk", "deployment__name"))
        return {
            "open_activations": Activation.objects.filter(state__in=OPEN).count(),
            "held_requests": len(self.gateway.held),
            "in_flight": sum(self._running.values()),
            "engines_nobody_wants": sum(desired.get(partition) != name for partition, name in there.items()),
            "slots_without_their_engine": len(desired.keys() - there.keys()),
            "pool_use_rows": PoolUse.objects.count(),
            "pool_use_in_flight": PoolUse.objects.exclude(in_flight=0).count(),
            "pool_hint_rows": PoolHint.objects.count(),
            "gateway_rows": GatewayBeat.objects.count(),
            "rss_mb_first": self.rss_mb[0] if self.rss_mb else None,
            "rss_mb_last": self.rss_mb[-1] if self.rss_mb else None,
        }


def _quantile(values: list[float], share: float) -> float:
    return round(float(np.quantile(values, share)), 2) if values else float("nan")
