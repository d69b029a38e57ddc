"""A dedicated deployment whose own engines are full is lent a slot of the pool that pooled models can do without."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.tenancy import Floors
from controlplane.fleet import pool_use, pool_view, services, verified
from controlplane.fleet.models import Activation, Deployment, Node, Partition
from controlplane.fleet.services import pool, slots, waking
from controlplane.fleet.services.waking import Ask, State, wake
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready
from tests.fleet.reporting import status_of, tell

pytestmark = pytest.mark.django_db
GIB = 1024**3
ADMIN = Actor.system("tester")


def slot(node: Node, **columns: object) -> Partition:
    return make_partition(node, gpus=[make_gpu(node, memory_bytes=80 * GIB)], pool=True, **columns)


def lent(node: Node, deployment: Deployment, *, ready_for_s: float = 600.0) -> Partition:
    partition = slot(node, deployment=deployment, role="aggregated", overflow=True)
    return make_ready(partition, phase_since=timezone.now() - timedelta(seconds=ready_for_s))


def resident(node: Node, name: str, *, ready_for_s: float = 600.0) -> Partition:
    deployment = make_deployment(name, mode="pooled")
    partition = slot(node, deployment=deployment, role="aggregated")
    return make_ready(partition, phase_since=timezone.now() - timedelta(seconds=ready_for_s))


def used(name: str, *, in_flight: int = 0, ago_s: float) -> None:
    pool_use.write("gw:1", [(name, in_flight, timezone.now().timestamp() - ago_s)])


def ask(name: str = "steady", waiters: int = 3) -> waking.Standing:
    return wake({name: Ask(waiters)})[name]


@pytest.fixture(autouse=True)
def _gateway_lives(settings: object) -> None:
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=1))  # however slow the machine is
    settings.POOL_FREE = 1


@pytest.fixture
def node() -> Node:
    return make_node("n1")


@pytest.fixture
def steady(node: Node) -> Deployment:
    """Dedicated, with an engine of its own, and may overflow."""
    deployment = make_deployment("steady", overflow=True, decode_max_requests=4)
    make_ready(make_partition(node, deployment=deployment, role="decode"))
    return deployment


def test_it_gets_a_slot_once_however_often_it_is_asked_for_and_everything_is_told(
    node: Node, steady: Deployment
) -> None:
    first, second = slot(node), slot(node)
    assert [ask().state for _ in range(3)] == [State.STARTING] * 3
    taken = Partition.objects.get(overflow=True)
    assert taken in (first, second)
    assert (taken.deployment, taken.role) == (steady, "aggregated")
    [activation] = Activation.objects.all()
    why = "its own engines are full, and 3 requests wait; the smallest free slot that holds it"
    assert (activation.cause, activation.state, activation.reason) == ("overflow", "starting", why)
    [event] = AuditEvent.objects.filter(verb="assign")
    assert (event.actor_name, event.reason) == ("pool", f"overflow; {why}")
    tell(node, replicas=(status_of(taken, "ready"),))
    assert ask().state == State.READY
    assert Activation.objects.get().state == "ready"
    assert ask().state == State.READY
    assert Partition.objects.filter(overflow=True).count() == 1, "one engine, however full it is"


def test_the_last_slots_held_for_pooled_models_are_not_lent(node: Node, steady: Deployment) -> None:
    slot(node)
    assert ask().state == State.WAITING
    assert not Partition.objects.filter(overflow=True)
    [row] = Activation.objects.all()
    assert row.reason.endswith("no slot that holds it is left beyond those held for pooled models")


def test_what_the_planner_wants_held_is_held(node: Node, steady: Deployment) -> None:
    for _ in range(3):
        slot(node)
    pool.aim(keep_alive_s=300, slots=3, reason="forecast", now=timezone.now())
    assert ask().state == State.WAITING
    pool.aim(keep_alive_s=300, slots=2, reason="forecast", now=timezone.now())
    assert ask().state == State.STARTING


def test_a_model_leaves_for_it_when_it_no_longer_counts_as_active(node: Node, steady: Deployment) -> None:
    slot(node)
    active, idle = resident(node, "active"), resident(node, "idle")
    used("active", ago_s=10)
    used("idle", ago_s=5000)
    assert ask().state == State.STARTING
    idle.refresh_from_db()
    active.refresh_from_db()
    assert (idle.deployment, active.deployment.name) == (steady, "active")
    assert Activation.objects.get().evicted == "idle"


def test_nothing_is_kept_of_an_ask_for_nobody_that_comes_to_nothing(node: Node, steady: Deployment) -> None:
    slot(node)
    assert wake({"steady": Ask(0, why="the plan is short")})["steady"].state == State.WAITING
    assert not Activation.objects.exists()


def test_one_that_may_not_overflow_is_not_asked_for(node: Node, steady: Deployment) -> None:
    slot(node), slot(node)
    Deployment.objects.filter(pk=steady.pk).update(overflow=False)
    assert ask().state == State.ABSENT


def test_without_an_engine_of_its_own_the_reason_says_so(node: Node) -> None:
    slot(node), slot(node)
    make_deployment("steady", overflow=True)
    ask()
    assert Activation.objects.get().reason.startswith("none of its own engines is ready; ")


def test_it_is_let_go_once_its_keep_alive_is_over_though_nobody_needs_the_slot(node: Node, steady: Deployment) -> None:
    partition = lent(node, steady)
    slot(node), slot(node)
    used("steady", ago_s=100)
    assert pool.sweep(timezone.now()) == []
    used("steady", ago_s=400)
    assert pool.sweep(timezone.now()) == ["steady"]
    partition.refresh_from_db()
    assert (partition.deployment, partition.overflow, partition.pool) == (None, False, True)
    reason = AuditEvent.objects.get(verb="release").reason
    assert reason == "taken back; its own engines have done without it for 400 s"


def test_it_stays_while_it_has_requests_in_flight(node: Node, steady: Deployment) -> None:
    lent(node, steady)
    used("steady", ago_s=400, in_flight=1)
    assert pool.sweep(timezone.now()) == []


def test_when_it_may_overflow_no_longer_the_slot_is_taken_back_as_soon_as_it_is_idle(
    node: Node, steady: Deployment
) -> None:
    lent(node, steady)
    used("steady", ago_s=1, in_flight=1)
    Deployment.objects.filter(pk=steady.pk).update(overflow=False)
    assert pool.sweep(timezone.now()) == []
    used("steady", ago_s=1)
    assert pool.sweep(timezone.now()) == ["steady"]


def test_a_pooled_model_that_is_asked_for_gets_the_lent_slot_first(node: Node, steady: Deployment) -> None:
    mine, idle = lent(node, steady), resident(node, "idle")
    used("steady", ago_s=5)
    used("idle", ago_s=5000)
    make_deployment("rare", mode="pooled", priority=-5)
    assert ask("rare").state == State.STARTING
    mine.refresh_from_db()
    idle.refresh_from_db()
    assert (mine.deployment.name, mine.overflow, idle.deployment.name) == ("rare", False, "idle")


def test_a_lent_slot_is_none_of_those_that_the_pool_has_free_or_active(node: Node, steady: Deployment) -> None:
    lent(node, steady)
    used("steady", ago_s=5, in_flight=2)
    slot(node)
    pool.aim(keep_alive_s=300, slots=1, reason="forecast", now=timezone.now())
    make_deployment("other", overflow=True)
    assert ask("other").state == State.WAITING, "the only slot that is left is held"


def test_a_start_that_fails_gives_the_slot_back(node: Node, steady: Deployment) -> None:
    slot(node), slot(node)
    ask()
    taken = Partition.objects.get(overflow=True)
    Partition.objects.filter(pk=taken.pk).update(
        phase="exited", observed_generation=taken.generation, restarts=1, message="out of memory"
    )
    assert ask().state == State.STARTING, "tried once more, elsewhere"
    again = Partition.objects.get(overflow=True)
    assert again != taken
    assert Activation.objects.filter(state="failed").get().message == "out of memory"


def test_a_person_who_assigns_it_otherwise_has_it(node: Node, steady: Deployment) -> None:
    partition = lent(node, steady)
    services.assign(partition.pk, deployment_id=steady.pk, role="prefill", actor=ADMIN)
    partition.refresh_from_db()
    assert not partition.overflow
    used("steady", ago_s=5000)
    assert pool.sweep(timezone.now()) == []


def test_a_slot_that_is_taken_out_of_the_pool_is_the_deployments_own(node: Node, steady: Deployment) -> None:
    partition = lent(node, steady)
    services.set_pool(partition.pk, pool=False, actor=ADMIN)
    partition.refresh_from_db()
    assert (partition.overflow, partition.deployment) == (False, steady)


def test_the_pool_page_tells_who_has_a_lent_slot_and_how_long_it_is_idle(node: Node, steady: Deployment) -> None:
    lent(node, steady)
    used("steady", ago_s=40)
    [shown] = pool_view.look(timezone.now()).slots
    assert (shown.place, shown.resident.lent) == (pool_view.Place.LENT, True)
    assert 39 < shown.resident.idle_s < 60


def test_the_floor_of_a_team_is_for_pooled_models_its_own_dedicated_ones_too(node: Node, steady: Deployment) -> None:
    """Two GPUs are its right; what is lent uses none of it and may not take any of it."""
    floors = Floors({1: 2}, {steady.pk: 1}, {1: "research"})
    slot(node), slot(node)
    assert wake({"steady": Ask(3)}, floors=floors)["steady"].state == State.WAITING
    slot(node)
    assert wake({"steady": Ask(3)}, floors=floors)["steady"].state == State.STARTING
    assert slots.holdings(floors, timezone.now()).used == {}


def test_a_lent_slot_is_within_nobodys_floor(node: Node, steady: Deployment) -> None:
    partition = lent(node, steady)
    used("steady", ago_s=5)
    make_deployment("rare", mode="pooled")
    floors = Floors({1: 1}, {steady.pk: 1}, {1: "research"})
    assert wake({"rare": Ask(1)}, floors=floors)["rare"].state == State.STARTING
    partition.refresh_from_db()
    assert partition.deployment.name == "rare"


def test_a_lent_slot_is_no_replica_that_bounds_and_warnings_count(node: Node, steady: Deployment) -> None:
    Deployment.objects.filter(pk=steady.pk).update(max_aggregated=1)
    mine = lent(node, steady)
    own = make_partition(node)
    after = services.preview_assign(own.pk, deployment_id=steady.pk, role="aggregated")
    assert not [one for one in after["problems"] if one["code"] == "over-maximum"]
    services.assign(own.pk, deployment_id=steady.pk, role="aggregated", actor=ADMIN, force=True)
    other = make_deployment("other")
    assert services.preview_assign(mine.pk, deployment_id=other.pk, role="decode")["warnings"] == []
    [warning] = services.preview_assign(own.pk, deployment_id=other.pk, role="decode")["warnings"]
    assert warning["code"] == "last-replica"


def test_when_its_node_is_emptied_a_lent_slot_ends_and_is_moved_nowhere(node: Node, steady: Deployment) -> None:
    mine = lent(node, steady)
    make_partition(make_node("n2"))
    told = services.preview_drain(node.pk, move=True, actor=ADMIN)
    to = {row["partition"]["id"]: row["to"] for row in told["leaving"]}
    assert to.pop(mine.pk) is None
    assert all(to.values()), "its own engine is moved"
