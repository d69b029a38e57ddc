"""What came of a played fleet: what activations found, how long decisions take with every GPU a slot, and what is left
when all is over."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import psutil

from bench._pool_run import Run
from bench._pool_site import moment
from bench._virtual import VirtualLoop
from controlplane.domain.forecast.activity import runs
from controlplane.domain.forecast.history import History
from controlplane.fleet.models import Activation, Deployment, GatewayBeat, Partition, PoolHint, PoolUse
from controlplane.fleet.services.waking import OPEN
from controlplane.gateway.models import RequestRecord
from controlplane.planning import policy, pooling, reserve
from controlplane.planning.models import Forecast
from controlplane.planning.reserve import HORIZON_S

LATE_S = 1.0  # a slot that came later than that was waited for
TIMED = 40  # calls with the whole fleet in the pool


def found(run: Run) -> dict[str, Any]:
    """Of the activations that the log has at the keep-alive in force. `cold`: no slot was free, so that somebody waited
    or another model left; `pool_short`: of these, what the planner's target counts, who waited or took the slot of a
    model that counted as active."""
    active = runs(run.requests, run.keep_alive_s)
    begun = int(((active.start >= run.start) & (active.start < run.end)).sum())
    mine = Activation.objects.filter(asked_at__lt=moment(run.end))
    asked = mine.filter(cause=Activation.Cause.REQUEST)
    waited = evicting = 0
    for asked_at, placed_at, evicted in asked.values_list("asked_at", "placed_at", "evicted"):
        is_late = placed_at is None or (placed_at - asked_at).total_seconds() > LATE_S
        waited, evicting = waited + is_late, evicting + (bool(evicted) and not is_late)
    short = waited + run.fresh["left by an active"]
    return {
        "activations": begun,
        "woken": asked.count(),
        "woken_ahead": mine.count() - asked.count(),
        "cold": round((waited + evicting) / max(1, begun), 5),
        "pool_short": round(short / max(1, begun), 5),
        "waited_for_a_slot": waited,
        "another_had_to_leave": evicting,
        "an_active_one_had_to_leave": run.fresh["left by an active"],
        "failed": mine.filter(state=Activation.State.FAILED).count(),
        "given_up": mine.filter(state=Activation.State.GIVEN_UP).count(),
        "most_slots": run.most_slots,
        "reports": run.agents.reports,
    }


def held(run: Run) -> dict[str, Any]:
    """The planner by itself, whatever the pool then did: of the log's activations those that made more models active
    than were wanted held, and the GPU-hours that were wanted. Its target is a share of `over_reserve`."""
    history = History(run.requests, run.keep_alive_s, HORIZON_S, run.start, run.end)
    played = Forecast.objects.filter(horizon_s=HORIZON_S, at__gte=moment(run.start), at__lt=moment(run.end))
    told = list(played.order_by("at"))
    if not told:
        return {"over_reserve": None, "gpu_hours_wanted": None}
    policy_now, at = policy.current(), np.array([row.at.timestamp() for row in told])
    wanted = np.array([sum(reserve.by_forecast(policy_now, row).values()) for row in told])
    begun = history.activations.at
    mine = (begun >= max(run.start, at[0])) & (begun < run.end)
    there = wanted[np.searchsorted(at, begun[mine], side="right") - 1]
    over, spans = history.activations.active[mine] > there, np.diff(at, append=run.end)
    return {
        "over_reserve": round(float(over.mean()), 5) if mine.any() else 0.0,
        "gpu_hours_wanted": round(float((wanted * spans).sum()) / 3600.0, 1),
    }


def served(run: Run) -> dict[str, Any]:
    """What clients had of it, by themselves, by the engines and by the gateway's records."""
    front, engines = run.front, run.engines
    waits = np.array(RequestRecord.objects.filter(wake_ms__gt=0).values_list("wake_ms", flat=True)) / 1e3
    free, left = first_waits()
    records = RequestRecord.objects.all()
    return {
        "requests": run.asked,
        "requests_failed": run.asked - front.statuses[200],
        "requests_recorded": records.count(),
        "requests_tried_again": records.filter(attempts__gt=1).count(),
        "requests_that_waited": len(waits),
        "wait_p50_s": _quantile(waits, 0.5),
        "wait_p95_s": _quantile(waits, 0.95),
        "wait_free_p50_s": _quantile(free, 0.5),
        "wait_left_p50_s": _quantile(left, 0.5),
        "engines_answered": engines.answered,
        "engines_refused": engines.refused,
        "engines_strayed": engines.strayed,
        "engines_broken": engines.broken,
        "engines_left": engines.left,
        "engines_tried": engines.probes,
        "tables_read": front.looks,
        "askings": front.wakes,
    }


def first_waits() -> tuple[list[float], list[float]]:
    """Of the first request of each activation: into a free slot, and where another model left for it."""
    waited: dict[str, list[tuple[float, float]]] = {}
    for name, at, ms in RequestRecord.objects.filter(wake_ms__gt=0).values_list("deployment", "at", "wake_ms"):
        waited.setdefault(name, []).append((at.timestamp(), ms / 1e3))
    found: tuple[list[float], list[float]] = ([], [])
    asked = Activation.objects.filter(cause=Activation.Cause.REQUEST)
    for name, at, evicted in asked.values_list("deployment__name", "asked_at", "evicted"):
        near = [wait for moment, wait in waited.get(name, ()) if abs(moment - at.timestamp()) < LATE_S]
        found[bool(evicted)].extend(near[:1])
    return found


def latencies(run: Run) -> dict[str, float]:
    return {
        "wake_p50_ms": _quantile(run.front.wake_ms, 0.5),
        "wake_p99_ms": _quantile(run.front.wake_ms, 0.99),
        "sweep_p50_ms": _quantile(run.sweep_ms, 0.5),
        "sweep_p99_ms": _quantile(run.sweep_ms, 0.99),
        "plan_p50_s": round(_quantile(run.plan_s, 0.5), 3),
    }


async def with_all(run: Run) -> dict[str, float]:
    """The time that decisions take with every GPU a slot: looks, and then models that are asked for one by one."""
    run.grow()
    asleep = Deployment.objects.filter(partitions__isnull=True).order_by("name")
    names = list(asleep.values_list("name", flat=True)[:TIMED])
    wakes, sweeps = [], []
    for _ in range(TIMED):
        await asyncio.sleep(1.0)
        run.before()
        began = time.process_time()
        pooling.look(moment(time.time()))
        sweeps.append((time.process_time() - began) * 1e3)
    for name in names:
        await asyncio.sleep(1.0)
        run.before()
        began = time.process_time()
        await run.front.waker.wake({name: 1})
        wakes.append((time.process_time() - began) * 1e3)
    return {
        f"full_{key}_{part}_ms": _quantile(values, share)
        for key, values in (("wake", wakes), ("sweep", sweeps))
        for part, share in (("p50", 0.5), ("p99", 0.99))
    }


def left(run: Run) -> dict[str, Any]:
    """What is still there when nothing has been asked for a while, and how much of it."""
    gateway, there = run.front.gateway, run.agents.residents()
    desired = dict(Partition.objects.filter(deployment__isnull=False).values_list("pk", "deployment__name"))
    return {
        "open_activations": Activation.objects.filter(state__in=OPEN).count(),
        "held_requests": gateway.hold._count + len(gateway.hold._lines),
        "held_bytes": gateway.hold._bytes,
        "in_flight": run.running.total() + gateway.in_flight,
        "engines_in_flight": sum(gateway.engines.load.values()),
        "engines_nobody_wants": sum(desired.get(partition) != name for partition, name in there.items()),
        "slots_without_their_engine": len(desired.keys() - there.keys()),
        "unwritten": gateway.recorder.waiting + gateway.recorder.dropped + len(run.front.teller._untold),
        "pool_use_rows": PoolUse.objects.count(),
        "pool_use_in_flight": PoolUse.objects.exclude(in_flight=0).count(),
        "pool_hint_rows": PoolHint.objects.count(),
        "gateway_rows": GatewayBeat.objects.count(),
        "rss_mb_first": run.rss_mb[0] if run.rss_mb else None,
        "rss_mb_last": run.rss_mb[-1] if run.rss_mb else None,
        "files_first": run.sockets[0] if run.sockets else None,
        "files_last": run.sockets[-1] if run.sockets else None,
    }


def after_close(run: Run, loop: VirtualLoop, tasks: int) -> dict[str, Any]:
    """Once the gateway has ended: `tasks` were at work before it began."""
    return {
        "tasks_left": len(asyncio.all_tasks(loop)) - tasks,
        "connections_left": run.engines.open,
        "loop_errors": len(run.errors),
        "threads_failing": sum(
            (run.front.watch.failing, run.front.teller._failing, run.front.gateway.recorder._failing)
        ),
        "files_after": psutil.Process().num_fds(),
    }


def _quantile(values: Any, share: float) -> float:
    return round(float(np.quantile(values, share)), 2) if len(values) else float("nan")
