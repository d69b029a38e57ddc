"""A model that leaves its slot stays there asleep where it may, and is woken there instead of started."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import pool_use, services, verified
from controlplane.fleet.models import Activation, Deployment, Node, Partition, Sleeper
from controlplane.fleet.publish import publish, spec_of
from controlplane.fleet.services import pool, waking
from controlplane.fleet.services.waking import Ask, State, wake
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready
from tests.fleet.reporting import status_of, tell
from workers.sleep import SleeperStatus, SleepReport

pytestmark = pytest.mark.django_db
GIB = 1024**3
ADMIN = Actor.system("tester")


@pytest.fixture(autouse=True)
def _on(settings: Any) -> None:
    settings.POOL_SLEEPERS = 2
    settings.POOL_FREE = 0
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=1))


@pytest.fixture
def node() -> Node:
    return make_node("n1", sleep_cap_bytes=128 * GIB)


def pooled(name: str, **columns: Any) -> Deployment:
    return make_deployment(name, mode="pooled", **columns)


def slot(node: Node, **columns: Any) -> Partition:
    return make_partition(node, gpus=[make_gpu(node, kind="nvidia")], pool=True, **columns)


def resident(node: Node, deployment: Deployment, *, idle_s: float = 900.0) -> Partition:
    partition = slot(node, deployment=deployment, role="aggregated")
    publish(node)
    partition.refresh_from_db()
    pool_use.write("gw:1", [(deployment.name, 0, timezone.now().timestamp() - idle_s)])
    return make_ready(partition, phase_since=timezone.now() - timedelta(seconds=2000))


def ask(name: str) -> waking.Standing:
    return wake({name: Ask(waiters=1)})[name]


def asleep(partition: Partition, name: str, **fields: Any) -> SleeperStatus:
    values = {"level": 1, "asleep_s": 30.0, "pid": 77, "host_bytes": 5 * GIB, "gpu_bytes": GIB, "generation": 1}
    return SleeperStatus(partition=partition.pk, deployment=name, **(values | fields))


def report_asleep(node: Node, *statuses: SleeperStatus, **fields: Any) -> None:
    told = SleepReport(cap_bytes=128 * GIB, held_bytes=5 * GIB, sleepers=statuses)
    tell(node, sleep=told, **fields)


def change_places(node: Node) -> tuple[Partition, str]:
    """`first` served in the slot, left it for `second`, which is ready there by now, and sleeps; its engine's key."""
    partition = resident(node, pooled("first"))
    key = partition.engine_key
    pooled("second")
    assert ask("second").state == State.STARTING
    partition.refresh_from_db()
    report_asleep(node, asleep(partition, "first"), replicas=(status_of(partition, "starting"),))
    report_asleep(node, asleep(partition, "first"), replicas=(status_of(partition, "ready", ready_after_s=40.0),))
    partition.refresh_from_db()
    Partition.objects.filter(pk=partition.pk).update(phase_since=timezone.now() - timedelta(seconds=2000))
    pool_use.write("gw:1", [("second", 0, timezone.now().timestamp() - 1900)])
    return partition, key


def test_who_leaves_for_another_may_stay_asleep_there_and_the_spec_says_so(node: Node) -> None:
    partition, key = change_places(node)
    [row] = Sleeper.objects.all()
    assert (row.deployment.name, row.engine_key, row.level, row.host_bytes, row.gpu_bytes) == (
        "first", key, 1, 5 * GIB, GIB,
    )  # fmt: skip
    assert 25 < (timezone.now() - row.asleep_since).total_seconds() < 60
    node.refresh_from_db()
    spec = spec_of(node)
    assert [one.deployment for one in spec.replicas] == ["second"] and spec.replicas[0].sleeps > 10**8  # its weights
    [bed] = spec.sleepers
    assert (bed.deployment, bed.partition, bed.api_key) == ("first", partition.pk, key)
    assert (node.sleep_cap_bytes, node.sleep_held_bytes) == (128 * GIB, 5 * GIB)


def test_it_is_woken_where_it_sleeps_as_the_same_engine_with_the_time_of_a_wake(node: Node) -> None:
    partition, key = change_places(node)
    elsewhere = slot(node)
    report_asleep(node, asleep(partition, "first"), replicas=(status_of(partition, "ready"),))
    AuditEvent.objects.create(
        verb="engine-woke", subject_type="partition", subject_id=partition.pk,
        after={"deployment": "first", "woken_after_s": 2.5}, actor_name="n1",
    )  # fmt: skip
    standing = ask("first")
    assert (standing.state, standing.expected_s) == (State.STARTING, 2.5)
    partition.refresh_from_db()
    elsewhere.refresh_from_db()
    assert partition.deployment.name == "first" and partition.engine_key == key and elsewhere.deployment is None
    latest = Activation.objects.first()
    assert latest.woken and latest.evicted == "second" and "its engine sleeps there" in latest.reason
    assert [row.deployment.name for row in Sleeper.objects.all()] == ["second"]
    node.refresh_from_db()
    assert spec_of(node).replicas[0].api_key == key and spec_of(node).sleepers[0].deployment == "second"


def test_a_wake_is_told_apart_from_a_start(node: Node) -> None:
    partition, _ = change_places(node)
    ask("first")
    partition.refresh_from_db()
    bed = asleep(partition, "second")
    report_asleep(node, bed, replicas=(status_of(partition, "starting"),))
    report_asleep(node, bed, replicas=(status_of(partition, "ready", ready_after_s=40.0, woken_after_s=3.0),))
    [woke] = AuditEvent.objects.filter(verb="engine-woke")
    assert woke.after["woken_after_s"] == 3.0 and woke.after["deployment"] == "first"
    assert AuditEvent.objects.filter(verb="engine-ready").count() == 1  # of the second one's start
    assert ask("first").state == State.READY


def test_somebody_who_is_kept_does_not_leave_for_one_that_sleeps_while_a_slot_is_free(node: Node) -> None:
    partition, _ = change_places(node)
    pool_use.write("gw:1", [("second", 0, timezone.now().timestamp() - 5)])
    free = slot(node)
    assert ask("first").state == State.STARTING
    free.refresh_from_db()
    partition.refresh_from_db()
    assert free.deployment.name == "first" and partition.deployment.name == "second"


def test_a_slot_that_is_emptied_keeps_its_model_asleep_and_a_release_by_people_keeps_nobody(node: Node) -> None:
    partition, _ = change_places(node)
    [name] = pool.sweep(timezone.now(), free=1)
    assert name == "second" and {row.deployment.name for row in Sleeper.objects.all()} == {"first", "second"}
    node.refresh_from_db()
    assert spec_of(node).replicas == () and len(spec_of(node).sleepers) == 2
    report_asleep(node, asleep(partition, "first"), asleep(partition, "second"))
    assert ask("second").state == State.STARTING
    services.release(partition.pk, actor=ADMIN)
    node.refresh_from_db()
    assert not Sleeper.objects.exists() and spec_of(node).sleepers == ()


def test_no_more_stay_than_are_wanted_in_a_slot(node: Node, settings: Any) -> None:
    settings.POOL_SLEEPERS = 1
    partition, _ = change_places(node)
    pooled("third")
    assert ask("third").state == State.STARTING
    assert [row.deployment.name for row in Sleeper.objects.all()] == ["second"]
    assert partition.pk


@pytest.mark.parametrize(
    ("columns", "deployment"),
    [
        ({"sleep_why_not": "engines on CPU slots do not sleep"}, {}),
        ({"sleep_cap_bytes": None}, {}),
        ({}, {"convertible": True}),
    ],
)
def test_nobody_sleeps_where_the_node_or_the_engine_cannot(node: Node, columns: Any, deployment: Any) -> None:
    Node.objects.filter(pk=node.pk).update(**columns)
    node.refresh_from_db()
    partition = resident(node, pooled("first", **deployment))
    pooled("second")
    ask("second")
    node.refresh_from_db()
    assert not Sleeper.objects.exists() and spec_of(node).sleepers == ()
    if not deployment:
        assert spec_of(node).replicas[0].sleeps is None
    assert partition.pk


def test_switched_off_nothing_of_it_is_in_the_spec_and_nobody_is_woken_there(node: Node, settings: Any) -> None:
    partition, _ = change_places(node)
    settings.POOL_SLEEPERS = 0
    before = node.generation
    publish(node)
    node.refresh_from_db()
    partition.refresh_from_db()
    assert spec_of(node).sleepers == () and spec_of(node).replicas[0].sleeps is None
    assert node.generation > before and partition.generation == partition.observed_generation  # nothing to confirm
    ask("first")
    assert not Activation.objects.first().woken


def test_a_drain_puts_everybody_away(node: Node) -> None:
    change_places(node)
    services.drain(node.pk, actor=ADMIN)
    node.refresh_from_db()
    assert spec_of(node).replicas == spec_of(node).sleepers == ()


def test_a_slot_that_is_taken_out_of_the_pool_has_no_sleepers(node: Node) -> None:
    partition, _ = change_places(node)
    services.set_pool(partition.pk, pool=False, actor=ADMIN)
    node.refresh_from_db()
    assert not Sleeper.objects.exists() and spec_of(node).sleepers == ()
    assert spec_of(node).replicas[0].sleeps is None


def test_one_that_did_not_fall_asleep_or_died_is_forgotten(node: Node) -> None:
    partition, _ = change_places(node)
    report_asleep(node, replicas=(status_of(partition, "ready"),))
    assert Sleeper.objects.get().asleep_since is None
    pool.sweep(timezone.now(), free=0)
    assert Sleeper.objects.count() == 1  # it may yet fall asleep
    Sleeper.objects.update(left_at=timezone.now() - timedelta(minutes=2))
    Partition.objects.update(phase="ready")
    node.refresh_from_db()
    Node.objects.filter(pk=node.pk).update(observed_generation=node.generation)
    pool.sweep(timezone.now(), free=0)
    node.refresh_from_db()
    assert not Sleeper.objects.exists() and spec_of(node).sleepers == ()


def test_a_node_whose_agent_does_not_know_of_it_is_as_before(node: Node) -> None:
    tell(node)
    node.refresh_from_db()
    assert node.sleep_cap_bytes == 128 * GIB  # as it was told last


def test_people_see_who_sleeps_where_and_no_key(node: Node) -> None:
    from controlplane.fleet import pool_view
    from controlplane.fleet.selectors import redacted_spec

    partition, key = change_places(node)
    node.refresh_from_db()
    assert key not in str(redacted_spec(node)) and redacted_spec(node)["sleepers"][0]["deployment"] == "first"
    [shown] = pool_view.look(timezone.now()).slots
    assert [one.deployment.name for one in shown.sleepers] == ["first"] and shown.partition == partition
    assert pool_view.sleepers_by_level() == {1: 1, 2: 0}


def test_what_is_left_when_it_is_switched_off_is_forgotten(node: Node, settings: Any) -> None:
    change_places(node)
    settings.POOL_SLEEPERS = 0
    node.refresh_from_db()
    Node.objects.filter(pk=node.pk).update(observed_generation=node.generation)
    pool.sweep(timezone.now(), free=0)
    node.refresh_from_db()
    assert not Sleeper.objects.exists() and spec_of(node).sleepers == ()
