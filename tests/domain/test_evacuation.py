"""Where the engines of a node that is drained may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.evacuation import Evacuation, Leaving, evacuate
from controlplane.domain.model_facts import ModelFacts
from controlplane.domain.placement import check
from controlplane.domain.types import NodeView, PartitionView, Role
from tests.domain.views import NOW, make_deployment, make_gpus, make_node, make_partition, make_peer, make_slots

UNKNOWN = ModelFacts.unknown()
OLD = "old"


def leaving(number: int, gpus: int = 1, role: Role = Role.DECODE, name: str = "chat") -> Leaving:
    partition = make_partition(number, gpus, node_name=OLD, deployment=name, role=role)
    return Leaving(partition, make_deployment(name=name, facts=UNKNOWN), role)


def free(number: int, gpus: int = 1, node: str = "b", **keys: object) -> PartitionView:
    return make_partition(number, gpus, node_name=node, **keys)


def plan(
    who: Sequence[Leaving],
    *places: PartitionView,
    nodes: dict[str, NodeView] | None = None,
    peers: dict[str, list[PartitionView]] | None = None,
) -> Evacuation:
    found = [(place, (nodes or {}).get(place.node_name) or make_node(place.node_name)) for place in places]
    return evacuate(who, found, peers=peers or {}, now=NOW)


def moves(found: Evacuation) -> dict[str, str]:
    return {move.source.label: move.target.label for move in found.moves}


def why(found: Evacuation) -> str:
    [stranded] = found.stranded
    assert stranded.problem.code == "no-room" and stranded.problem.forceable
    return stranded.problem.message


def test_each_engine_gets_a_partition_of_its_own_elsewhere():
    found = plan([leaving(1), leaving(2)], free(11), free(12), free(13))
    assert moves(found) == {"old/p1": "b/p11", "old/p2": "b/p12"}
    assert found.stranded == ()


def test_they_spread_over_the_nodes():
    found = plan([leaving(1), leaving(2)], free(11), free(12), free(21, node="c"))
    assert {move.target.node_name for move in found.moves} == {"b", "c"}


def test_a_small_one_leaves_the_large_partition_to_the_large_one():
    found = plan([leaving(1, 1), leaving(2, 4)], free(11, 4), free(12, 1))
    assert moves(found) == {"old/p1": "b/p12", "old/p2": "b/p11"}


def test_a_small_one_takes_a_large_partition_where_nothing_else_is_free():
    assert moves(plan([leaving(1, 1)], free(11, 4))) == {"old/p1": "b/p11"}


def test_no_engine_gets_fewer_devices_than_it_had():
    assert "b/p11 has 1 GPU, not 2." in why(plan([leaving(1, 2)], free(11, 1)))


def test_no_engine_gets_another_kind_of_device():
    slots = make_partition(11, make_slots(2), node_name="b")
    assert "b/p11 has another kind of device." in why(plan([leaving(1)], slots))
    simulated = make_partition(12, make_gpus(1, kind="simulated"), node_name="b")
    assert "b/p12 has another kind of device." in why(plan([leaving(1)], simulated))


def test_what_is_in_the_pool_stays_in_it_and_nothing_else_takes_its_slots():
    own, pooled = leaving(1), leaving(2)
    pooled = replace(pooled, pooled=True)
    found = plan([own, pooled], free(11, pool=True), free(12))
    assert moves(found) == {"old/p1": "b/p12", "old/p2": "b/p11"}
    assert "b/p11 is a pool slot, held for models that are woken." in why(plan([own], free(11, pool=True)))
    assert "b/p12 is no slot of the pool." in why(plan([pooled], free(12)))


def test_where_nothing_is_free_that_is_the_reason():
    taken = make_peer(Role.DECODE, 11, node_name="b")
    assert "no other node has a free partition" in why(plan([leaving(1)], taken))


def test_a_free_partition_of_the_same_node_is_no_place():
    assert "no other node has a free partition" in why(plan([leaving(1)], free(5, node=OLD)))


def test_cordoned_draining_silent_and_revoked_nodes_are_no_place():
    nodes = {
        "b": make_node("b", schedulable=False),
        "c": make_node("c", draining=True),
        "d": make_node("d", last_seen=NOW - 60),
        "e": make_node("e", revoked=True),
    }
    found = plan([leaving(1)], *(free(n, node=name) for n, name in enumerate("bcde", 11)), nodes=nodes)
    assert "Node b is cordoned. Node c has been drained. Node d is silent" in why(found)
    assert why(found).endswith("And 1 more.")


def test_when_the_others_take_what_fits_that_is_the_reason():
    found = plan([leaving(1), leaving(2)], free(11))
    assert moves(found) == {"old/p1": "b/p11"}
    assert "the others of this node take the partitions that fit" in why(found)


def test_one_that_has_chosen_gives_way_where_it_has_another_place():
    """A prefill of version 2 may go anywhere; its deployment's other one has one place only."""
    nodes = {"b": make_node("b", engine_version="1"), "c": make_node("c", engine_version="2")}
    peers = {"picky": [make_peer(Role.DECODE, 31, node_name="d", deployment="picky", engine_version="2")]}
    easy = [leaving(n, name="easy", role=Role.AGGREGATED) for n in (1, 2)]
    picky = leaving(3, name="picky", role=Role.PREFILL)
    found = plan([*easy, picky], free(11), free(12), free(21, node="c"), nodes=nodes, peers=peers)
    assert moves(found)["old/p3"] == "c/p21"
    assert found.stranded == ()


def test_a_pair_that_goes_together_stays_a_pair():
    """Both halves find room, but on nodes whose engines could not exchange KV blocks: one of them is told so."""
    nodes = {"b": make_node("b", engine_version="1"), "c": make_node("c", engine_version="2")}
    pair = [leaving(1, role=Role.PREFILL), leaving(2, role=Role.DECODE)]
    places = [free(11, engine_version="1"), free(21, node="c", engine_version="2")]
    found = plan(pair, *places, nodes=nodes)
    assert len(found.moves) == 1
    assert "pairs need equal versions" in why(found)


sizes = st.sampled_from([1, 1, 2, 4])
ROLES = st.sampled_from(list(Role))
names = st.sampled_from(["chat", "code"])
states = st.sampled_from([{}, {}, {"schedulable": False}, {"draining": True}, {"last_seen": NOW - 99}])


@settings(deadline=None, max_examples=200)
@given(
    who=st.lists(st.tuples(sizes, ROLES, names), max_size=5),
    places=st.lists(st.tuples(sizes, st.sampled_from("bcd"), st.booleans(), st.sampled_from(["1", "2"])), max_size=8),
    node_states=st.tuples(states, states, states),
    data=st.data(),
)
def test_no_partition_is_used_twice_none_is_unlawful_and_each_refusal_has_a_reason(who, places, node_states, data):
    rows = [leaving(n, size, role, name) for n, (size, role, name) in enumerate(who, 1)]
    nodes = {name: make_node(name, **state) for name, state in zip("bcd", node_states, strict=True)}
    parts = [
        free(n, size, node, engine_version=version, **({"deployment": "x", "role": Role.AGGREGATED} if taken else {}))
        for n, (size, node, taken, version) in enumerate(places, 100)
    ]
    found = plan(rows, *parts, nodes=nodes)

    targets = [move.target.id for move in found.moves]
    assert len(set(targets)) == len(targets)
    assert sorted([m.source.id for m in found.moves] + [s.source.id for s in found.stranded]) == [
        row.partition.id for row in rows
    ]
    assert all(stranded.problem.message and stranded.problem.fix for stranded in found.stranded)
    by_id = {row.partition.id: row for row in rows}
    for move in found.moves:
        one, node = by_id[move.source.id], nodes[move.target.node_name]
        assert move.target.node_name != OLD and move.target.deployment is None
        assert len(move.target.gpus) >= len(move.source.gpus)
        assert check(move.target, one.deployment, one.role, node=node, now=NOW) == []
    shuffled = data.draw(st.permutations(rows)), data.draw(st.permutations(parts))
    assert plan(shuffled[0], *shuffled[1], nodes=nodes) == found


@settings(deadline=None, max_examples=100)
@given(st.lists(sizes, max_size=4), st.lists(sizes, max_size=4))
def test_as_many_find_room_as_can(who, places):
    rows = [leaving(n, size, Role.AGGREGATED) for n, size in enumerate(who, 1)]
    found = plan(rows, *(free(n, size) for n, size in enumerate(places, 100)))
    most = max(
        sum(have >= need for need, have in zip(who, order, strict=False)) for order in permutations(_padded(places, 4))
    )
    assert len(found.moves) == most


def _padded(sizes: list[int], length: int) -> list[int]:
    return sizes + [0] * (length - len(sizes))
