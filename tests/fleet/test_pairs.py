"""A pooled model that is woken as a pair has both of its slots or none, whatever befalls them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.pool_pairs import BUSY, NONE
from controlplane.domain.tenancy import Floors
from controlplane.fleet import pool_use, pool_view, services, verified
from controlplane.fleet.errors import Invalid
from controlplane.fleet.models import Activation, Change, Deployment, Node, Partition, PoolAim
from controlplane.fleet.pool_view import Place
from controlplane.fleet.publish import publish
from controlplane.fleet.services import pool, waking
from controlplane.fleet.services.waking import Ask, State, wake
from tests.factories import GIB, make_deployment, make_gpu, make_model, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db
ADMIN = Actor.system("tester")
HALVES = ["decode", "prefill"]


def pair(name: str, **columns: object) -> Deployment:
    return make_deployment(name, mode="pooled", pool_shape="pair", **columns)


def pooled(name: str, **columns: object) -> Deployment:
    return make_deployment(name, mode="pooled", **columns)


def slot(node: Node, *, gpus: int = 1, memory: int = 80 * GIB, **columns: object) -> Partition:
    return make_partition(node, gpus=[make_gpu(node, memory_bytes=memory) for _ in range(gpus)], pool=True, **columns)


def resident(node: Node, deployment: Deployment, role: str = "aggregated", *, ready_for_s: float = 600.0) -> Partition:
    partition = slot(node, deployment=deployment, role=role)
    return make_ready(partition, phase_since=timezone.now() - timedelta(seconds=ready_for_s))


def idle_pair(name: str, *nodes: Node, ago_s: float = 500.0, **columns: object) -> list[Partition]:
    there = pair(name, **columns)
    pool_use.write("gw:1", [(name, 0, timezone.now().timestamp() - ago_s)])
    return [resident(nodes[0], there, "prefill"), resident(nodes[-1], there, "decode")]


def idle(name: str, node: Node, *, ago_s: float, **columns: object) -> Partition:
    pool_use.write("gw:1", [(name, 0, timezone.now().timestamp() - ago_s)])
    return resident(node, pooled(name, **columns))


def ask(name: str, **more: object) -> waking.Standing:
    return wake({name: Ask(waiters=3)}, **more)[name]


def held_by(name: str) -> dict[str, Partition]:
    return {row.role: row for row in Partition.objects.filter(deployment__name=name).select_related("node")}


def ready(name: str) -> None:
    for row in held_by(name).values():
        make_ready(row, phase_since=timezone.now() - timedelta(seconds=600))


@pytest.fixture(autouse=True)
def _gateway_lives() -> None:
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=5))


@pytest.fixture
def node() -> Node:
    return make_node("n1")


def test_it_gets_two_slots_at_once_and_is_ready_when_both_are(node: Node) -> None:
    pair("large")
    slots = [slot(node), slot(node), slot(node)]
    assert [ask("large").state for _ in range(2)] == [State.STARTING] * 2
    held = held_by("large")
    assert sorted(held) == HALVES
    [activation] = Activation.objects.all()
    assert (activation.shape, activation.partition, activation.partner) == ("pair", held["prefill"], held["decode"])
    assert activation.slot == f"{held['prefill']} + {held['decode']}"
    why = "asked for; the smallest two free slots that hold it as a pair, on one node"
    assert {event.reason for event in AuditEvent.objects.filter(verb="assign")} == {why}
    node.refresh_from_db()
    assert sorted(replica["role"] for replica in node.spec["replicas"]) == HALVES
    make_ready(held["decode"])
    assert ask("large").state == State.STARTING
    make_ready(held["prefill"])
    assert ask("large").state == State.READY
    assert Partition.objects.filter(deployment=None).count() == len(slots) - 2


def test_with_one_slot_it_takes_none(node: Node) -> None:
    pair("large")
    slot(node)
    assert ask("large").state == State.WAITING
    assert Activation.objects.get().reason == NONE
    assert not Partition.objects.exclude(deployment=None).exists()
    resident(node, make_deployment("dedicated"))
    standing = ask("large")
    assert (standing.state, standing.message) == (State.WAITING, BUSY)


def test_two_pairs_that_need_three_slots_do_not_wait_for_each_other(node: Node) -> None:
    pair("first")
    pair("second")
    for _ in range(3):
        slot(node)
    found = wake({"first": Ask(), "second": Ask()})
    assert sorted(standing.state for standing in found.values()) == [State.STARTING, State.WAITING]
    assert sorted(len(held_by(name)) for name in ("first", "second")) == [0, 2]


@pytest.mark.parametrize("how", ["one node", "links", "version", "kind", "tp"])
def test_its_slots_are_chosen_by_the_rules_of_pairs(node: Node, how: str) -> None:
    pair("large")
    other = make_node("n2", engine_version="0.33.0" if how == "version" else "0.32.0")
    if how == "one node":
        slot(node)
        wanted = {slot(other), slot(other)}
    elif how == "links":
        slot(other)
        slot(other)
        wanted = {slot(node), slot(node)}
        for here, there in (wanted, tuple(wanted)[::-1]):
            here.gpus.update(peers=[there.gpus.get().uuid])
    elif how == "tp":
        even = make_model(config={"num_attention_heads": 8, "num_key_value_heads": 4})
        Deployment.objects.update(model=even)
        small, large = slot(node), slot(node, gpus=2)
        assert ask("large").state == State.STARTING
        held = held_by("large")
        assert (held["prefill"], held["decode"]) == (small, large), "decode has as many GPUs at least"
        return
    else:
        slot(node)
        third = slot(other)
        if how == "kind":
            third.gpus.update(kind="cpu")
        assert (ask("large").state, Activation.objects.get().reason) == (State.WAITING, NONE)
        return
    assert ask("large").state == State.STARTING
    assert set(held_by("large").values()) == wanted


def test_as_many_leave_as_are_needed_and_those_least_to_be_missed(node: Node) -> None:
    kept, old, older = (idle(name, node, ago_s=ago_s) for name, ago_s in (("kept", 90), ("old", 400), ("older", 500)))
    pair("large")
    assert ask("large").state == State.STARTING
    assert set(held_by("large").values()) == {old, older}
    assert Activation.objects.get().evicted == "old, older"
    kept.refresh_from_db()
    assert kept.deployment.name == "kept"


def test_one_leaves_where_one_slot_is_free(node: Node) -> None:
    there, free = idle("there", node, ago_s=400), slot(node)
    idle("busy", node, ago_s=1)
    pair("large")
    assert ask("large").state == State.STARTING
    assert set(held_by("large").values()) == {there, free}
    assert Activation.objects.get().evicted == "there"


def test_a_pair_that_leaves_for_one_slot_leaves_both(node: Node) -> None:
    prefill, decode = idle_pair("large", node, make_node("n2"))
    pooled("rare")
    assert ask("rare").state == State.STARTING
    rows = {row.pk: row.deployment and row.deployment.name for row in Partition.objects.all()}
    assert sorted([rows[prefill.pk], rows[decode.pk]], key=str) == [None, "rare"]
    assert "made room for rare" in AuditEvent.objects.get(verb="release").reason


def test_a_pair_takes_the_place_of_another_at_once(node: Node) -> None:
    slots = idle_pair("old", node)
    pair("new")
    assert ask("new").state == State.STARTING
    assert set(held_by("new").values()) == set(slots)
    assert Activation.objects.get().evicted == "old"


@pytest.mark.parametrize("why", ["busy", "half starts", "half fresh", "half pinned", "half in a change"])
def test_a_pair_of_which_one_half_may_not_leave_stays_whole(node: Node, why: str) -> None:
    prefill, _ = idle_pair("large", node)
    if why == "busy":
        pool_use.write("gw:1", [("large", 1, timezone.now().timestamp())])
    elif why == "half starts":
        make_ready(prefill, phase="starting")
    elif why == "half fresh":
        make_ready(prefill)
    elif why == "half pinned":
        Partition.objects.filter(pk=prefill.pk).update(pinned=True)
    else:
        moved = {"partition": {"id": prefill.pk, "name": "n1/p0"}}
        Change.objects.create(state="running", actor_name="olga", moves=[moved], plan={}, steps=[], version=0)
    pooled("rare")
    assert ask("rare").state == State.WAITING
    pool.sweep(timezone.now(), free=2)
    assert sorted(held_by("large")) == HALVES


def test_slots_are_freed_in_pairs_and_counted_so(node: Node) -> None:
    idle_pair("large", node, ago_s=800, keep_alive_s=60)
    idle("rare", node, ago_s=700, keep_alive_s=60)
    assert pool.sweep(timezone.now(), free=2) == ["large"], "its two are enough"
    assert sorted(held_by("rare")) == ["aggregated"]


def test_ahead_of_a_request_nobody_leaves_for_a_pair(node: Node) -> None:
    idle("there", node, ago_s=4000)
    slot(node)
    pair("large")
    ahead = {"large": Ask(0, Activation.Cause.AHEAD)}
    assert wake(ahead)["large"].state == State.WAITING
    slot(node)
    assert wake(ahead)["large"].state == State.STARTING


def test_floors_of_teams_count_both_slots(node: Node) -> None:
    large, other = pair("large"), pooled("other")
    for _ in range(3):
        slot(node)
    floors = Floors({1: 2}, {other.pk: 1}, {1: "search"})
    standing = ask("large", floors=floors)
    assert (standing.state, held_by("large")) == (State.WAITING, {})
    assert standing.message == "the free slots are kept for search (0 of its 2 GPUs in use)"
    slot(node)
    assert ask("large", floors=floors).state == State.STARTING
    assert large.partitions.count() == 2


def test_a_pair_of_a_team_below_its_floor_has_both(node: Node) -> None:
    large = pair("large", priority=-5)
    for name in ("a", "b"):
        idle(name, node, ago_s=300, priority=9)
    floors = Floors({1: 1}, {large.pk: 1}, {1: "search"})
    assert ask("large", floors=floors).state == State.STARTING
    assert sorted(held_by("large")) == HALVES


def test_what_is_within_another_teams_floor_stays_though_half_of_it_would_do(node: Node) -> None:
    idle_pair("theirs", node)
    theirs = Deployment.objects.get(name="theirs")
    pooled("rare")
    assert ask("rare", floors=Floors({1: 1}, {theirs.pk: 1}, {1: "search"})).state == State.WAITING
    assert sorted(held_by("theirs")) == HALVES


def test_the_pool_is_seen_with_who_belongs_together(node: Node) -> None:
    prefill, decode = idle_pair("large", node)
    found = {slot.partition.pk: slot for slot in pool_view.look(timezone.now()).slots}
    assert [found[row.pk].place for row in (prefill, decode)] == [Place.IDLE, Place.IDLE]
    assert [found[row.pk].pair_with for row in (prefill, decode)] == [[str(decode)], [str(prefill)]]
    make_ready(prefill, phase="starting")
    found = {slot.partition.pk: slot for slot in pool_view.look(timezone.now()).slots}
    assert {slot.place for slot in found.values()} == {Place.STARTING}


def test_a_change_of_shape_holds_from_the_next_waking_on(node: Node) -> None:
    slots = idle_pair("large", node)
    publish(node)
    ready("large")
    services.update_deployment(slots[0].deployment_id, pool_shape="aggregated", actor=ADMIN)
    assert ask("large").state == State.READY
    assert pool.sweep(timezone.now(), free=2) == ["large"]
    assert ask("large").state == State.STARTING
    assert sorted(held_by("large")) == ["aggregated"]
    event = AuditEvent.objects.get(verb="change")
    assert (event.before, event.after) == ({"pool_shape": "pair"}, {"pool_shape": "aggregated"})


def test_a_pair_that_no_slots_could_ever_be_is_refused() -> None:
    with pytest.raises(Invalid, match="KV cache dtype"):
        there = make_deployment("large", mode="pooled", prefill_args=["--kv-cache-dtype=fp8"])
        services.update_deployment(there.pk, pool_shape="pair", actor=ADMIN)
    with pytest.raises(Invalid, match="shape"):
        services.update_deployment(there.pk, pool_shape="triple", actor=ADMIN)


def test_activations_of_pairs_before_now_are_of_one_slot() -> None:
    at: datetime = timezone.now()
    row = Activation.objects.create(
        deployment=pooled("rare"), cause="request", state="ready", asked_at=at, wanted_at=at, ended_at=at
    )
    assert (row.shape, row.partner) == ("aggregated", None)
    assert PoolAim.objects.count() == 0
