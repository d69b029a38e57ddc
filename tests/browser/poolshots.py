"""Takes pictures of the Pool page: 1440 and 380 px, dark and light; empty, before anything was asked, with a week
behind it, and with what it asks for cut off.

python -m tests.browser.poolshots FOLDER [--only NAME,NAME] [--models N]
"""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta

from playwright.sync_api import Page

from tests.browser.pictures import Shooter, program

SLOTS = 8


def shoot(shooter: Shooter, options: argparse.Namespace) -> None:
    shooter.take("pool-empty", "/pool/")
    names = furnish(options.models)
    shooter.take("pool-unasked", "/pool/")
    remember(names)
    shooter.take("pool", "/pool/")
    large = pair()
    shooter.take("pool-pair", "/pool/")
    shooter.take("deployment-pair", f"/deployments/{large}/")
    shooter.take("deployment-pair-form", f"/deployments/{large}/edit")
    deployment = lend()
    shooter.take("pool-lent", "/pool/")
    shooter.take("deployment-overflow", f"/deployments/{deployment}/")
    shooter.take("deployment-overflow-form", f"/deployments/{deployment}/edit")
    put_to_sleep(names)
    foretell(len(names))
    shooter.take("pool-asleep", "/pool/")
    shooter.take("fleet-ahead", "/")
    make_teams(names)
    shooter.take("pool-floors", "/pool/")
    shooter.take("teams-floors", "/cost/teams/")
    shooter.take("pool-broken", "/pool/", _cut_off)


def furnish(models: int) -> list[str]:
    """Slots on two nodes, half of them taken, and the models. Needs Django, which needs the environment."""
    from tests.browser import week  # noqa: F401 - sets Django up
    from tests.factories import make_deployment, make_gpu, make_model, make_node, make_partition, make_ready

    model = make_model("small")
    names = [f"{('chat', 'code', 'mini', 'rank')[place % 4]}-{place}" for place in range(models)]
    made = [make_deployment(name, model=model, mode="pooled") for name in names]
    for number in range(SLOTS):
        if number % 4 == 0:
            node = make_node(f"node-{number // 4 + 1}", last_seen=_now() + timedelta(days=1))
        taken = made[number] if number % 2 else None
        partition = make_partition(
            node, gpus=[make_gpu(node)], pool=True, deployment=taken, role="aggregated" if taken else ""
        )
        if taken:
            make_ready(partition, phase_since=_now() - timedelta(minutes=20 * number))
    return names


def put_to_sleep(names: list[str]) -> None:
    """One asleep beside an active model, three in a slot of nobody."""
    from controlplane.fleet.models import Deployment, Partition, Sleeper

    slots = Partition.objects.filter(pool=True).order_by("pk")
    beds = [slots.filter(deployment__isnull=False).first(), *[slots.filter(deployment=None).first()] * 3]
    for place, (slot, name) in enumerate(zip(beds, names[SLOTS:], strict=False)):
        at = _now() - timedelta(minutes=4 + 55 * place)
        Sleeper.objects.create(
            partition=slot, deployment=Deployment.objects.get(name=name), engine_key="", left_at=at, asleep_since=at,
            level=1 + place % 2, host_bytes=(19 - 8 * (place % 2)) * 2**30, gpu_bytes=1_200 * 2**20,
        )  # fmt: skip


def foretell(models: int) -> None:
    """Models of two sizes, and what the pool is to hold of each by the policy."""
    from django.utils import timezone

    from controlplane.fleet.services import pool
    from controlplane.planning import policy, reserve
    from controlplane.planning.forecasting import LEVELS
    from controlplane.planning.models import Forecast

    now, in_force = timezone.now(), policy.current()
    large = {"gpus": 2, "models": 3, "assumed": 0, "active": 1, "values": [0, 1, 1, 1, 2, 2]}
    small = {"gpus": 1, "models": models - 3, "assumed": 1, "active": 4, "values": [3, 4, 5, 6, 8, 9]}
    for horizon_s in (600, 3600):
        Forecast.objects.create(
            at=now, horizon_s=horizon_s, keep_alive_s=in_force.keep_alive_s, active=5, known_models=models,
            levels=list(LEVELS), values=[3, 5, 6, 7, 10, 11], by_size=[small, large], method="pictures",
            recorded_s=7 * 86_400.0,
        )  # fmt: skip
    wanted = reserve.wanted_by(in_force, now.timestamp())
    assert wanted is not None
    pool.aim(
        keep_alive_s=in_force.keep_alive_s, slots=wanted.slots, reason=wanted.why, now=now, by_gpus=wanted.sizes
    )  # fmt: skip


def make_teams(names: list[str]) -> None:
    """One within its floor, one that is owed more than is free."""
    from controlplane.audit.services import Actor
    from controlplane.teams.services import create_team

    actor = Actor.system("pictures")
    create_team(name="search and ranking", pool_floor=2, deployments=names[1:6:2], actor=actor)
    create_team(name="ads", pool_floor=9, deployments=names[7:8], actor=actor)


def remember(names: list[str]) -> None:
    """A week of requests, what is learned of it, and the last ones that were woken."""
    from controlplane.fleet import pool_use, verified
    from controlplane.fleet.models import Activation, Deployment
    from controlplane.planning import habits, keeping
    from tests.browser import week

    now = _now()
    keeping.save_import(week.of(len(names), now.timestamp()), actor=week.ACTOR, now=now.timestamp())
    habits.refresh(now.timestamp())
    verified.beat("gateway:1", "", now + timedelta(days=1))
    for place, name in enumerate(names[:SLOTS]):
        pool_use.write("gateway:1", [(name, int(place == 1), now.timestamp() - 90.0 * place)])
    for place, name in reversed(list(enumerate(names))):
        at = now - timedelta(minutes=7 * place)
        Activation.objects.create(
            deployment=Deployment.objects.get(name=name), slot=f"node-1/p{place % 4}", cause="request",
            state="failed" if place == 5 else "ready", reason="the smallest free slot that holds it", waiters=1,
            message="its engine ended with code 1: ValueError: no such weights" if place == 5 else "",
            asked_at=at, wanted_at=at, placed_at=at, ended_at=at + timedelta(seconds=7 + place % 5),
            broke_at=at + timedelta(minutes=3) if place == 2 else None,
        )  # fmt: skip


def pair() -> int:
    """A model that is there as a pair, and one of which a half starts yet."""
    from controlplane.fleet import pool_use
    from controlplane.fleet.models import Activation, Node
    from tests.factories import make_deployment, make_gpu, make_partition, make_ready

    now, nodes = _now(), list(Node.objects.order_by("pk"))
    large, larger = (make_deployment(name, mode="pooled", pool_shape="pair") for name in ("chat-70b", "chat-123b"))
    for deployment, state in ((large, "ready"), (larger, "starting")):
        halves = [
            make_partition(node, gpus=[make_gpu(node)], pool=True, deployment=deployment, role=role)
            for node, role in zip((nodes[0], nodes[0 if state == "ready" else 1]), ("prefill", "decode"), strict=True)
        ]
        for half in halves:
            is_ready = state == "ready" or half.role == "decode"
            make_ready(half, phase="ready" if is_ready else "starting", phase_since=now - timedelta(minutes=8))
        Activation.objects.create(
            deployment=deployment, shape="pair", partition=halves[0], partner=halves[1], cause="request", state=state,
            slot=" + ".join(map(str, halves)), evicted="rank-3, mini-6" if state == "starting" else "", waiters=3,
            reason="the smallest two free slots that hold it as a pair, linked by NVLink", asked_at=now,
            wanted_at=now + timedelta(days=1), placed_at=now,
            ended_at=now + timedelta(seconds=41) if state == "ready" else None,
        )  # fmt: skip
    pool_use.write("gateway:1", [("chat-70b", 2, now.timestamp())])
    return large.pk


def lend() -> int:
    """A dedicated deployment with an engine of its own and a slot, another one that waits for a slot."""
    from controlplane.fleet import pool_use
    from controlplane.fleet.models import Activation, Node, Partition
    from tests.factories import make_deployment, make_gpu, make_partition, make_ready

    now = _now()
    limits = {"overflow": True, "aggregated_max_requests": 16, "keep_alive_s": 300}
    steady, other = (make_deployment(name, **limits) for name in ("assistant-70b", "assistant-8b"))
    node = Node.objects.order_by("pk").first()
    for deployment in (steady, other):
        make_ready(make_partition(node, gpus=[make_gpu(node)], deployment=deployment, role="aggregated"))
    slot = Partition.objects.filter(pool=True, deployment=None).first()
    Partition.objects.filter(pk=slot.pk).update(deployment=steady, role="aggregated", overflow=True)
    slot.refresh_from_db()
    make_ready(slot, phase_since=now - timedelta(minutes=6))
    pool_use.write("gateway:1", [(steady.name, 5, now.timestamp())])
    why = "its own engines are full, and 9 requests wait"
    row = {"cause": "overflow", "asked_at": now, "wanted_at": now + timedelta(days=1), "waiters": 9}
    Activation.objects.create(
        deployment=steady, partition=slot, slot=str(slot), state="ready", placed_at=now, ended_at=now,
        reason=f"{why}; the smallest free slot that holds it", **row,
    )  # fmt: skip
    waits = "no slot that holds it is left beyond those held for pooled models"
    Activation.objects.create(deployment=other, state="waiting", reason=f"{why}; {waits}", **row)
    return steady.pk


def _now() -> datetime:
    from django.utils import timezone

    return timezone.now()


def _cut_off(page: Page) -> None:
    page.route("**/api/v1/capacity**", lambda route: route.abort())
    page.reload()
    page.wait_for_timeout(1500)


if __name__ == "__main__":
    program(__doc__, shoot, models=24)
