"""A model that is asked for gets a slot; who is idle leaves it; what fails is told, and the slot is free again."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import pool_use, services, verified
from controlplane.fleet.models import Activation, Deployment, Node, Partition, PoolAim
from controlplane.fleet.publish import publish
from controlplane.fleet.services import pool, waking
from controlplane.fleet.services.waking import Ask, State, wake
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready
from tests.fleet.reporting import status_of, tell

pytestmark = pytest.mark.django_db
GIB = 1024**3
ADMIN = Actor.system("tester")


def pooled(name: str, **columns: object) -> Deployment:
    return make_deployment(name, mode="pooled", **columns)


def slot(node: Node, *, memory: int = 80 * GIB, **columns: object) -> Partition:
    return make_partition(node, gpus=[make_gpu(node, memory_bytes=memory)], pool=True, **columns)


def resident(node: Node, deployment: Deployment, *, ready_for_s: float = 600.0, **columns: object) -> Partition:
    partition = slot(node, deployment=deployment, role="aggregated", **columns)
    return make_ready(partition, phase_since=timezone.now() - timedelta(seconds=ready_for_s))


def used(name: str, *, in_flight: int = 0, ago_s: float, gateway: str = "gw:1") -> None:
    pool_use.write(gateway, [(name, in_flight, timezone.now().timestamp() - ago_s)])


def ask(name: str, **more: object) -> waking.Standing:
    return wake({name: Ask(waiters=3)}, **more)[name]


@pytest.fixture(autouse=True)
def _gateway_lives() -> None:
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=1))  # however slow the machine is


@pytest.fixture
def node() -> Node:
    return make_node("n1")


def test_it_gets_the_smallest_slot_that_holds_it_once_however_often_it_is_asked_for(node: Node) -> None:
    pooled("rare")
    large, small = slot(node), slot(node, memory=20 * GIB)
    assert [ask("rare").state for _ in range(3)] == [State.STARTING] * 3
    small.refresh_from_db()
    large.refresh_from_db()
    assert (small.deployment.name, small.role, large.deployment) == ("rare", "aggregated", None)
    [activation] = Activation.objects.all()
    assert (activation.state, activation.slot, activation.waiters) == ("starting", "n1/" + small.name, 3)
    [event] = AuditEvent.objects.filter(verb="assign")
    assert (event.actor_name, event.reason) == ("pool", "asked for; the smallest free slot that holds it")
    node.refresh_from_db()
    assert node.spec["replicas"][0]["role"] == "aggregated"


def test_only_pooled_deployments_are_woken_and_only_into_slots(node: Node) -> None:
    make_deployment("fixed")
    make_partition(node)
    pooled("rare")
    found = wake(dict.fromkeys(["fixed", "rare", "none"], Ask()))
    assert [found[name].state for name in ("fixed", "rare", "none")] == [State.ABSENT, State.WAITING, State.ABSENT]
    assert Activation.objects.get().reason == "no slot of the pool is large enough for it and open to pooled models"


def test_the_engine_that_is_ready_ends_it_and_its_time_is_what_the_next_one_is_told(node: Node) -> None:
    pooled("rare")
    partition = slot(node)
    assert ask("rare").expected_s is None
    partition.refresh_from_db()
    tell(node, replicas=(status_of(partition, "starting"),))
    assert ask("rare").state == State.STARTING
    tell(node, replicas=(status_of(partition, "ready", ready_after_s=7.5),))
    assert ask("rare").state == State.READY
    assert Activation.objects.get().state == "ready"
    services.release(partition.pk, actor=ADMIN)
    assert ask("rare").expected_s == 7.5


def test_who_waits_for_a_slot_is_told_by_how_long_it_took_the_last_times_wherever_that_was(node: Node) -> None:
    rare, now = pooled("rare"), timezone.now()
    resident(node, pooled("busy"))
    used("busy", in_flight=1, ago_s=0)
    assert (ask("rare").state, ask("rare").expected_s) == (State.WAITING, None)
    for took in (4.0, 6.0, 30.0):
        placed = now - timedelta(seconds=100)
        Activation.objects.create(
            deployment=rare, cause="request", state="ready", asked_at=placed - timedelta(seconds=50), wanted_at=placed,
            placed_at=placed, ended_at=placed + timedelta(seconds=took),
        )  # fmt: skip
    assert (ask("rare").state, ask("rare").expected_s) == (State.WAITING, 6.0)
    slot(make_node("never-ran-it"))
    standing = ask("rare")
    assert (standing.state, standing.expected_s) == (State.STARTING, 6.0)


def test_the_idle_one_that_was_asked_for_longest_ago_leaves_at_once_in_one_step(node: Node) -> None:
    old, new = pooled("old"), pooled("new")
    first, second = resident(node, old), resident(node, new)
    used("old", ago_s=500)
    used("new", ago_s=400)
    pooled("rare")
    assert ask("rare").state == State.STARTING
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.deployment.name, second.deployment.name) == ("rare", "new")
    assert Activation.objects.get().evicted == "old"
    assert "idle for 500 s" in AuditEvent.objects.get(verb="assign").reason


@pytest.mark.parametrize(
    "why", ["busy", "fresh", "starting", "pinned", "dedicated", "higher", "no gateway", "silent gateway"]
)
def test_who_may_not_leave_stays_and_the_other_waits(node: Node, why: str) -> None:
    there = pooled("there", priority=5 if why == "higher" else 0)
    partition = resident(node, there, ready_for_s=1 if why == "fresh" else 600, pinned=why == "pinned")
    used("there", ago_s=300, in_flight=int(why == "busy"))
    if why == "starting":
        make_ready(partition, phase="starting")
    if why == "dedicated":
        Deployment.objects.filter(pk=there.pk).update(mode="dedicated")
    if why == "no gateway":
        verified.ended("gw:1")
    if why == "silent gateway":
        used("there", ago_s=300, in_flight=2, gateway="gw:2")
        verified.beat("gw:2", "", timezone.now() - timedelta(seconds=20))
    pooled("rare")
    assert ask("rare").state == State.WAITING
    partition.refresh_from_db()
    assert partition.deployment == there


def test_a_gateway_that_has_been_gone_for_a_minute_has_nothing_in_flight(node: Node) -> None:
    resident(node, pooled("there"))
    used("there", ago_s=300, in_flight=2, gateway="gw:2")
    verified.beat("gw:2", "", timezone.now() - timedelta(seconds=90))
    pooled("rare")
    assert ask("rare").state == State.STARTING


def test_slots_are_freed_ahead_and_nobody_who_counts_as_active_leaves_for_that(node: Node) -> None:
    done, active = pooled("done", keep_alive_s=60), pooled("active", keep_alive_s=3600)
    idle, _ = resident(node, done), resident(node, active)
    for name in ("done", "active"):
        used(name, ago_s=120)
    assert pool.sweep(timezone.now(), free=2) == ["done"]
    assert pool.sweep(timezone.now(), free=1) == []
    idle.refresh_from_db()
    assert idle.deployment is None
    assert "kept free" in AuditEvent.objects.get(verb="release").reason


def test_the_planner_aims_at_slots_in_use_and_free_together(node: Node) -> None:
    for name, ago_s in (("active", 5), ("done", 400), ("long done", 500)):
        resident(node, pooled(name))
        used(name, ago_s=ago_s)
    publish(node)
    Partition.objects.update(observed_generation=F("generation"))
    now = timezone.now()
    pool.aim(keep_alive_s=60, slots=3, reason="99% sure", now=now)
    assert pool.sweep(now) == ["long done", "done"]
    pool.aim(keep_alive_s=9000, slots=3, reason="99% sure", now=now)
    assert pool.sweep(now) == []


def test_a_slot_is_freed_of_the_size_that_the_planner_lacks(node: Node) -> None:
    for name, gpus, ago_s in (("small", 1, 900), ("large", 2, 400)):
        there = make_partition(node, gpus=gpus, pool=True, deployment=pooled(name))
        make_ready(there, phase_since=timezone.now() - timedelta(seconds=600))
        used(name, ago_s=ago_s)
    publish(node)
    Partition.objects.update(observed_generation=F("generation"))
    now = timezone.now()
    pool.aim(keep_alive_s=60, slots=1, reason="99% sure", now=now, by_gpus={1: 0, 2: 1})
    assert pool.sweep(now) == ["large"], "though the other one is idle for longer"
    pool.aim(keep_alive_s=60, slots=1, reason="99% sure", now=now, by_gpus={1: 1})
    assert PoolAim.objects.get().by_gpus == {}, "all of one GPU: any slot will do"
    assert pool.sweep(now) == [], "one is free"


def test_the_sweep_ends_what_nobody_waits_for_and_what_nobody_asks_about(node: Node) -> None:
    pooled("rare")
    pooled("other")
    partition = slot(node)
    ask("rare")
    ask("other")
    make_ready(Partition.objects.get(pk=partition.pk))
    pool.sweep(later := timezone.now() + timedelta(seconds=3))
    assert Activation.objects.get(deployment__name="rare").state == "ready"
    assert Activation.objects.get(deployment__name="other").state == "waiting"
    pool.sweep(later + timedelta(seconds=40))
    assert Activation.objects.get(deployment__name="other").state == "given_up"


def test_while_the_brake_is_on_nobody_is_made_to_leave(node: Node) -> None:
    resident(node, pooled("there"))
    used("there", ago_s=4000)
    pooled("rare")
    for number in range(3):
        make_node(f"gone-{number}", last_seen=timezone.now() - timedelta(seconds=60))
    assert ask("rare").state == State.WAITING
    assert pool.sweep(timezone.now(), free=5) == []


def test_ahead_of_a_request_only_a_free_slot_is_taken(node: Node) -> None:
    resident(node, pooled("there"))
    used("there", ago_s=4000)
    pooled("rare")
    ahead = {"rare": Ask(0, Activation.Cause.AHEAD)}
    assert wake(ahead)["rare"].state == State.WAITING
    assert not Activation.objects.exists()
    slot(node)
    assert wake(ahead)["rare"].state == State.STARTING


def test_setting_a_partition_aside_is_on_record_and_changes_nothing_that_runs(node: Node) -> None:
    partition = make_partition(node)
    services.set_pool(partition.pk, pool=True, actor=ADMIN, reason="night")
    services.set_pool(partition.pk, pool=True, actor=ADMIN)
    [event] = AuditEvent.objects.filter(verb="pool")
    assert (event.before, event.after, event.reason) == ({"pool": False}, {"pool": True}, "night")


def test_activations_are_kept_as_long_as_configured(node: Node, settings: pytest.FixtureRequest) -> None:
    deployment, now = pooled("rare"), timezone.now()
    for days in (1, 40):
        at: datetime = now - timedelta(days=days)
        Activation.objects.create(
            deployment=deployment, cause="request", state="ready", asked_at=at, wanted_at=at, ended_at=at
        )
    pool.prune(now)
    assert Activation.objects.count() == 1


def crowd(nodes: int, each: int, free: int, models: int) -> dict[str, Ask]:
    """So many slots of which so many are free, and in each of the others a model with a request in flight."""
    for number in range(nodes):
        node = make_node(f"many-{number}")
        for place in range(each):
            if number * each + place < free:
                slot(node)
                continue
            resident(node, pooled(f"there-{number}-{place}"))
            used(f"there-{number}-{place}", in_flight=1, ago_s=1)
        publish(node)
    Partition.objects.update(observed_generation=F("generation"))
    for number in range(models):
        pooled(f"asked-{number}")
    return {f"asked-{number}": Ask() for number in range(models)}


@pytest.mark.parametrize(("free", "most_first", "most_then"), [(20, 580, 230), (0, 180, 160)])
def test_the_pool_is_read_once_for_all_that_are_asked_for(free: int, most_first: int, most_then: int) -> None:
    asks = crowd(nodes=8, each=8, free=free, models=20)
    Node.objects.update(last_seen=timezone.now() + timedelta(minutes=5))  # to furnish them takes a slow machine a while
    with CaptureQueriesContext(connection) as first:
        found = wake(asks)
    with CaptureQueriesContext(connection) as then:
        again = wake(asks)
    state = State.STARTING if free else State.WAITING
    assert {standing.state for standing in (*found.values(), *again.values())} == {state}
    for told, most in ((first, most_first), (then, most_then)):
        looks = [query for query in told if 'WHERE "fleet_partition"."pool"' in query["sql"]]
        assert len(looks) <= 1
        assert len(told) <= most
    assert len(set(Partition.objects.exclude(deployment=None).values_list("deployment", flat=True))) == 64
