"""Which of the places that remain is best."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.model_facts import ModelFacts
from controlplane.domain.placement import Ranking, candidates
from controlplane.domain.types import DeploymentView, NodeView, PartitionView, Role
from tests.domain import configs
from tests.domain.views import (
    NOW,
    make_deployment,
    make_gpu,
    make_gpus,
    make_linked_gpus,
    make_node,
    make_partition,
    make_peer,
    problems,
)

LLAMA_70B = make_deployment(configs.LLAMA_70B, configs.LLAMA_70B_BYTES)


def rank(
    *partitions: PartitionView,
    deployment: DeploymentView | None = None,
    role: Role = Role.DECODE,
    peers: tuple[PartitionView, ...] = (),
    nodes: dict[str, NodeView] | None = None,
) -> Ranking:
    places = [(p, (nodes or {}).get(p.node_name) or make_node(p.node_name)) for p in partitions]
    return candidates(places, deployment or make_deployment(), role, peers=peers, now=NOW)


def names(ranking: Ranking) -> list[str]:
    return [candidate.partition.label for candidate in ranking.ranked]


def test_the_tightest_place_that_holds_is_taken() -> None:
    small = make_gpu(0, memory_bytes=24 * 2**30, name="L4")

    ranking = rank(make_partition(1), make_partition(2, gpus=[small]))

    assert names(ranking) == ["a/p2", "a/p1"]
    assert "of the memory" in ranking.ranked[0].reasons[0]


def test_gpus_of_one_nvlink_island_are_preferred() -> None:
    loose = make_partition(1, gpus=make_gpus(4))
    linked = make_partition(2, gpus=make_linked_gpus(4))

    ranking = rank(loose, linked, deployment=LLAMA_70B)

    assert names(ranking) == ["a/p2", "a/p1"]
    assert "its GPUs share NVLink" in ranking.ranked[0].reasons
    assert "its GPUs do not all share NVLink" in ranking.ranked[1].reasons


def test_a_place_near_its_partner_is_preferred() -> None:
    island = make_linked_gpus(2)
    partner = make_peer(Role.PREFILL, gpus=[island[0]])
    far = make_partition(1, node_name="b", gpus=[make_gpu(7)])
    near = make_partition(2, gpus=[make_gpu(5)])
    linked = make_partition(3, gpus=[island[1]])

    ranking = rank(far, near, linked, peers=(partner,))

    assert names(ranking) == ["a/p3", "a/p2", "b/p1"]
    assert "NVLink to its partner" in ranking.ranked[0].reasons
    assert "KV blocks would cross the network to its partner" in ranking.ranked[2].reasons


def test_replicas_of_a_role_are_spread_over_nodes() -> None:
    ranking = rank(make_partition(1), make_partition(2, node_name="b"), peers=(make_peer(Role.DECODE),))

    assert names(ranking) == ["b/p2", "a/p1"]
    assert "1 more of this role on the node" in ranking.ranked[1].reasons


def test_refused_places_come_back_with_their_problems() -> None:
    ranking = rank(
        make_partition(1, deployment="other", role=Role.DECODE),
        make_partition(2, gpus=[make_gpu(foreign=True)]),
        make_partition(3, node_name="b"),
        make_partition(4),
        nodes={"b": make_node("b", schedulable=False)},
    )

    assert names(ranking) == ["a/p4"]
    assert {c.partition.label: [p.code for p in c.problems] for c in ranking.refused} == {
        "a/p1": ["partition-taken"],
        "a/p2": ["gpu-foreign"],
        "b/p3": ["node-cordoned"],
    }


def test_an_unknown_model_is_ranked_without_its_fit() -> None:
    ranking = rank(make_partition(), deployment=make_deployment(facts=ModelFacts.unknown()))

    assert names(ranking) == ["a/p1"]
    assert not any("memory" in reason for reason in ranking.ranked[0].reasons)


PARTITIONS = st.lists(
    st.builds(
        make_partition,
        st.integers(1, 99),
        st.sampled_from([1, 2, 4, 8]),
        node_name=st.sampled_from("abc"),
        deployment=st.none() | st.just("other"),
        engine_version=st.sampled_from(["", "0.31.0", "0.32.0"]),
    ),
    max_size=6,
    unique_by=lambda partition: partition.id,
)
PEERS = st.lists(
    st.builds(make_peer, st.sampled_from(Role), st.integers(100, 120), st.sampled_from([1, 2, 4])), max_size=4
)


@given(PARTITIONS, PEERS, st.sampled_from(Role))
def test_ranking_is_checking_and_its_order_is_stable(
    partitions: list[PartitionView], peers: list[PartitionView], role: Role
) -> None:
    ranking = rank(*partitions, role=role, peers=tuple(peers), deployment=LLAMA_70B)
    again = rank(*reversed(partitions), role=role, peers=tuple(reversed(peers)), deployment=LLAMA_70B)

    assert len(ranking.ranked) + len(ranking.refused) == len(partitions)
    assert names(again) == names(ranking)
    for candidate in ranking.ranked:
        partition = candidate.partition
        assert partition.deployment is None
        assert problems(partition, LLAMA_70B, role, node=make_node(partition.node_name), peers=tuple(peers)) == []
