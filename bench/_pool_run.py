"""Plays a log through a simulated fleet behind a real gateway, in virtual time. Imported once Django is set up."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from bench._pool_engines import Engines
from bench._pool_front import Front, each
from bench._pool_site import Agents, moment
from bench._virtual import real_monotonic, until
from bench.pool_fleet import SERVICE_S
from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.fleet.models import Activation, Deployment, Partition, PoolAim
from controlplane.fleet.services import pool, waking
from controlplane.fleet.services.waking import Standing, State
from controlplane.planning import habits, keeping, pooling, standing
from controlplane.planning.forecasting import PACES, Forecasting
from tests.factories import make_model

ACTOR = Actor.system("bench")
LOOK_S, SOON_S, PLAN_S, MINUTE_S = 60.0, 2.0, 600.0, 60.0
AFTER_S = 1200.0  # played on without requests, so that everything comes to its end
STAGE_S = 3600.0  # after each it tells how far it is, and may end


@dataclass(slots=True)
class Run:
    """`requests` is what is judged by, `sent` what clients send: of the same models, at work at the same times."""

    requests: Requests
    sent: Requests
    nodes: int
    gpus: int
    start: float
    end: float
    keep_alive_s: float
    most_s: float  # of the machine's time; what is played by then is told
    agents: Agents = field(init=False)
    engines: Engines = field(init=False)
    front: Front = field(init=False)
    asked: int = 0  # requests
    fresh: Counter[str] = field(default_factory=Counter)  # what models found that were asked for anew
    sweep_ms: list[float] = field(default_factory=list)  # CPU, as are all times of decisions
    plan_s: list[float] = field(default_factory=list)
    rss_mb: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)  # at work on the loop, as rss_mb
    sockets: list[int] = field(default_factory=list)
    slot_s: float = 0.0
    most_slots: int = 0
    errors: list[str] = field(default_factory=list)  # that nobody caught
    in_pool: set[int] = field(default_factory=set)
    running: Counter[str] = field(default_factory=Counter)
    _last_use: dict[str, float] = field(default_factory=dict)  # infinity: in flight
    _slots_at: float = 0.0
    _forecasting: Forecasting = field(init=False)
    _stepping_at: float = np.inf
    _counted: set[int] = field(default_factory=set)  # activations, in `fresh`
    _soon: bool = False
    _began: float = 0.0

    def __post_init__(self) -> None:
        self._slots_at = self.start
        before = self.requests.within(0.0, self.start)
        keeping.save_import(before, actor=ACTOR, now=self.start, spans=[(float(before.at.min()), self.start)])
        self.agents = Agents(self.nodes, self.gpus, self.start)
        self.engines = Engines(self.agents.serving, SERVICE_S)
        self.front = Front(self.before, self._asked)
        for name in self.requests.models:
            Deployment.objects.create(name=name, model=make_model(f"weights-of-{name}"), mode="pooled")
        self._forecasting = Forecasting(paces={600: PACES[600]})  # the horizon that the pool is held by

    async def open(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._unexpected)
        for partition in self.agents.of:
            await self.engines.listen(partition)
        self.agents.reach(self.engines.ports)
        await self.front.open()

    def _unexpected(self, loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        self.errors.append(str(told))
        if len(self.errors) == 1:
            loop.default_exception_handler(told)

    async def play(self) -> None:
        self._began = real_monotonic()
        async with asyncio.TaskGroup() as group:
            for period_s, work, first in (
                (PLAN_S, self._plan, self.start),
                (LOOK_S, self._look, self.start),
                (MINUTE_S, self._minute, self.start + MINUTE_S),
                (STAGE_S, self._stage, self.start + STAGE_S),
            ):
                group.create_task(each(period_s, work, self._goes_on, first))
            await self._send(group)
        self._count_slots(self.end)

    async def close(self) -> None:
        """As gateway and engines end."""
        await self.front.close()
        self.engines.close()
        await asyncio.sleep(1.0)

    def _goes_on(self) -> bool:
        return time.time() < self.end + AFTER_S

    # What happens

    async def _send(self, group: asyncio.TaskGroup) -> None:
        played = self.sent.within(self.start, self.end)
        names = played.models
        for model, at, done in zip(played.model.tolist(), played.at.tolist(), played.until.tolist(), strict=True):
            await until(at)
            if at > self.end:
                return
            group.create_task(self._one(names[model], done + SERVICE_S))

    async def _one(self, name: str, done_at: float) -> None:
        self.asked += 1
        self.running[name] += 1
        self._last_use[name] = np.inf
        await self.front.ask(name, done_at)
        self.running[name] -= 1
        if not self.running[name]:
            del self.running[name]
            self._last_use[name] = time.time()

    def _asked(self, held: Mapping[str, int], standings: Mapping[str, Standing]) -> None:
        """The gateway has asked for models: the pool grows by those that found no slot."""
        now = time.time()
        placed = Activation.objects.filter(placed_at=moment(now), cause=Activation.Cause.REQUEST)
        placed = [one for one in placed.values_list("pk", "evicted") if one[0] not in self._counted]
        for pk, evicted in placed:
            self._counted.add(pk)
            rested = now - self._last_use.get(evicted, -np.inf) >= self.keep_alive_s
            self.fresh["a free slot" if not evicted else "left by a rested" if rested else "left by an active"] += 1
        if placed and not Partition.objects.filter(pool=True, deployment__isnull=True).exists():
            self._sweep_soon()
        self._grow(sum(told.state is State.WAITING for told in standings.values()), now)
        self.changed(now)

    def _sweep_soon(self) -> None:
        """The product looks each 2 s. Between the bench's looks it matters when the last free slot was taken."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_later(SOON_S, self._look_again)

    def _look_again(self) -> None:
        self._soon = False
        self._sweep(time.time())

    def _agent(self) -> None:
        """All agents that have something to say report."""
        self._stepping_at, now = np.inf, time.time()
        self.before()
        self.agents.look(now)
        self.agents.step(now)
        for deployment in pool._starting():  # as each look at the pool does
            waking.look_after(deployment, moment(now))
        self.front.changed()
        if (at := self.agents.next_at()) is not None:
            self._step(at)

    def _look(self, now: float) -> None:
        self._sweep(now)
        self._size(now)

    def _sweep(self, now: float) -> None:
        self.before()
        began = time.process_time()
        pooling.look(moment(now))
        self.sweep_ms.append((time.process_time() - began) * 1e3)
        self.changed(now)

    def _plan(self, now: float) -> None:
        """What planning.tasks does each minute, when something is due of it."""
        self._minute(now)
        began = time.process_time()
        self._forecasting.tick(now)
        standing.refresh(now)
        habits.refresh(now)
        self.plan_s.append(time.process_time() - began)

    def _minute(self, now: float) -> None:
        self.front.record()
        keeping.note_recorded(now)

    def _stage(self, now: float) -> None:
        gc.collect()
        self.rss_mb.append(round(psutil.Process().memory_info().rss / 2**20))
        self.tasks.append(len(asyncio.all_tasks()))
        self.sockets.append(psutil.Process().num_fds())
        day, spent = (now - self.start) / 86_400, real_monotonic() - self._began
        print(
            f"  day {day:.3f}: {self.asked} requests, {len(self.in_pool)} slots, {self.rss_mb[-1]} MB, "
            f"{self.tasks[-1]} tasks, {self.sockets[-1]} files, {dict(self.fresh)}, {spent:.0f} s "
            f"of which CPU {time.process_time():.0f} s",
            flush=True,
        )
        pool.prune(moment(now))
        if spent > self.most_s:
            self.end = min(self.end, now)

    # How

    def before(self) -> None:
        """Before anybody looks at the fleet."""
        self.agents.hear(time.time())
        self.front.tell()

    def changed(self, now: float) -> None:
        """A service may have published: agents hear of it with their next reports, and routing may have changed."""
        self.front.changed()
        self._step(float(np.floor(now)) + 1.0)

    def _step(self, at: float) -> None:
        if at < self._stepping_at:
            self._stepping_at = at
            asyncio.get_running_loop().call_at(at, self._agent_at, at)

    def _agent_at(self, at: float) -> None:
        if at == self._stepping_at:
            self._agent()

    # The pool's size

    def _size(self, now: float) -> None:
        """As many as are wanted, or active; only empty slots are taken back."""
        wanted = PoolAim.objects.values_list("slots", flat=True).first() or 0
        active = sum(now - at < self.keep_alive_s for at in self._last_use.values())
        held = max(wanted, active)
        self._grow(held - len(self.in_pool), now)
        empty = Partition.objects.filter(pool=True, deployment__isnull=True, phase="").order_by("-pk")
        surplus = len(self.in_pool) - held
        for partition in empty.values_list("pk", flat=True)[: max(0, surplus)]:
            self._set(partition, False, now)

    def grow(self) -> None:
        """Every GPU becomes a slot."""
        self._grow(self.nodes * self.gpus, time.time())

    def _grow(self, more: int, now: float) -> None:
        if more <= 0:
            return
        spare = Partition.objects.filter(pool=False, deployment__isnull=True, phase="").order_by("name", "pk")
        for partition in spare.values_list("pk", flat=True)[:more]:
            self._set(partition, True, now)

    def _set(self, partition: int, is_slot: bool, now: float) -> None:
        self._count_slots(now)
        pool.set_pool(partition, pool=is_slot, actor=ACTOR, reason="as many as are wanted")
        (self.in_pool.add if is_slot else self.in_pool.discard)(partition)
        if now <= self.end:
            self.most_slots = max(self.most_slots, len(self.in_pool))

    def _count_slots(self, now: float) -> None:
        self.slot_s += len(self.in_pool) * max(0.0, min(now, self.end) - min(self._slots_at, self.end))
        self._slots_at = now
