"""Where a role may go: a test for each refusal, then the order of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.model_facts import ModelFacts
from controlplane.domain.placement import Ranking, blocking, candidates, check, memory_fit
from controlplane.domain.types import DeploymentView, NodeView, PartitionView, Phase, Problem, Role
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
    make_slots,
)

SMALL_LLAMA = make_deployment({**configs.LLAMA_70B, "num_hidden_layers": 8}, 14 * 10**9)  # fits everywhere
LLAMA_70B = make_deployment(configs.LLAMA_70B, configs.LLAMA_70B_BYTES)


def problems(
    partition: PartitionView | None = None,
    deployment: DeploymentView | None = None,
    role: Role = Role.DECODE,
    *,
    node: NodeView | None = None,
    peers: tuple[PartitionView, ...] = (),
) -> list[Problem]:
    return check(
        partition or make_partition(),
        deployment or make_deployment(),
        role,
        node=node or make_node(),
        peers=peers,
        now=NOW,
    )


def codes(*args: Any, **keys: Any) -> list[str]:
    return [problem.code for problem in problems(*args, **keys)]


@pytest.mark.parametrize("role", Role)
def test_a_free_gpu_takes_every_role(role: Role) -> None:
    assert problems(role=role) == []


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"revoked": True}, "node-revoked"),
        ({"last_seen": None}, "node-never-seen"),
        ({"last_seen": NOW - 11}, "node-silent"),
        ({"draining": True, "partitions_in_use": 2}, "node-draining"),
        ({"draining": True}, "node-draining"),
        ({"schedulable": False}, "node-cordoned"),
    ],
)
def test_a_node_that_takes_nothing_is_named_with_the_reason(keys: dict[str, Any], code: str) -> None:
    found = problems(node=make_node("gpu-7", **keys))

    assert [problem.code for problem in found] == [code]
    assert "gpu-7" in found[0].message
    assert found[0].fix
    assert not found[0].forceable


def test_a_silent_node_that_is_cordoned_too_says_both() -> None:
    assert codes(node=make_node(last_seen=NOW - 99, schedulable=False)) == ["node-silent", "node-cordoned"]


def test_a_silent_node_says_for_how_long() -> None:
    assert "(99 s)" in problems(node=make_node(last_seen=NOW - 99))[0].message


def test_a_partition_without_gpus_is_refused() -> None:
    assert codes(make_partition(gpus=())) == ["partition-empty"]


@pytest.mark.parametrize("keys", [{"present": False}, {"health": "lost"}])
def test_a_lost_gpu_is_refused(keys: dict[str, Any]) -> None:
    assert codes(make_partition(gpus=[make_gpu(3, **keys)])) == ["gpu-lost"]


def test_a_gpu_that_somebody_else_uses_is_refused_and_named() -> None:
    (problem,) = problems(make_partition(gpus=[make_gpu(0), make_gpu(3, foreign=True)]), SMALL_LLAMA)

    assert problem.code == "gpu-foreign"
    assert "GPU 3 of a/p1" in problem.message
    assert not problem.forceable


def test_a_degraded_gpu_may_be_used_by_force() -> None:
    (problem,) = problems(make_partition(gpus=[make_gpu(health="degraded", health_detail="ECC errors")]))

    assert (problem.code, problem.forceable) == ("gpu-degraded", True)
    assert "ECC errors" in problem.message


def test_gpus_of_different_kinds_are_refused() -> None:
    mixed = [make_gpu(0), make_gpu(1, name="A100")]

    assert codes(make_partition(gpus=mixed), SMALL_LLAMA) == ["gpu-kinds-mixed"]


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [(1, []), (2, ["tp-does-not-divide-heads"]), (4, ["tp-does-not-divide-heads"]), (3, ["tp-size"])],
)
def test_gpus_must_share_the_heads_evenly(gpus: int, expected: list[str]) -> None:
    assert codes(make_partition(gpus=gpus)) == expected  # SmolLM2 has nine heads


def test_the_message_tells_which_sizes_would_do() -> None:
    deployment = make_deployment(configs.QWEN25_7B, 15 * 10**9)  # 28 heads

    (problem,) = problems(make_partition(gpus=8), deployment)

    assert problem.fix == "Choose a partition of 1, 2, 4 GPUs."


def test_gpus_share_kv_heads_or_repeat_them() -> None:
    six = make_deployment({**configs.LLAMA_70B, "num_key_value_heads": 6, "num_attention_heads": 48}, 10**9)

    assert codes(make_partition(gpus=2), six) == []
    assert codes(make_partition(gpus=4), six) == ["tp-does-not-divide-kv-heads"]
    assert codes(make_partition(gpus=16), LLAMA_70B) == []  # eight KV heads, each on two GPUs


def test_mla_has_no_kv_heads_to_share() -> None:
    big = make_gpus(8, memory_bytes=180 * 2**30)

    assert codes(make_partition(gpus=big), make_deployment(configs.DEEPSEEK_V3, configs.DEEPSEEK_V3_BYTES)) == []


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    (problem,) = problems(make_partition(gpus=1), LLAMA_70B)

    assert (problem.code, problem.forceable) == ("memory", True)
    for number in ("weights 141.1 GB", "KV 42.9 GB", "131072 tokens", "offers 77.0 GB"):
        assert number in problem.message


def test_a_smaller_context_can_make_it_fit() -> None:
    gpus = make_gpus(2)
    short = make_deployment(configs.LLAMA_70B, configs.LLAMA_70B_BYTES, engine_args=("--max-model-len", "8192",
        "--gpu-memory-utilization=0.95"))  # fmt: skip

    assert codes(make_partition(gpus=gpus), LLAMA_70B) == ["memory"]
    assert codes(make_partition(gpus=gpus), short) == []


def test_with_an_automatic_context_the_weights_alone_decide() -> None:
    def automatic(config: dict[str, Any], size: int) -> DeploymentView:
        return make_deployment(config, size, engine_args=("--max-model-len", "auto"))

    assert codes(make_partition(gpus=4), automatic(configs.LLAMA_70B, configs.LLAMA_70B_BYTES)) == []
    assert codes(make_partition(gpus=1), automatic(configs.LLAMA_70B, configs.LLAMA_70B_BYTES)) == ["memory"]


def test_an_unknown_model_is_not_held_back() -> None:
    assert problems(deployment=make_deployment(facts=ModelFacts.unknown())) == []


def test_cpu_slots_are_one_rank_with_all_their_memory() -> None:
    partition = make_partition(gpus=make_slots(2))

    fit = memory_fit(partition, make_deployment(), Role.DECODE, concurrency=8)

    assert problems(partition) == []
    assert (partition.tp, fit.tp, fit.available_bytes, fit.context_tokens) == (1, 1, 8 * 10**9, 2048)
    assert fit.weights_bytes == configs.SMOLLM2_BYTES


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_a_hybrid_model_is_not_disaggregated_unless_forced(role: Role) -> None:
    hybrid = make_deployment(configs.QWEN3_NEXT, 10 * 10**9)

    (problem,) = problems(deployment=hybrid, role=role)

    assert (problem.code, problem.forceable) == ("hybrid-disaggregated", True)
    assert codes(deployment=hybrid, role=Role.AGGREGATED) == []


def test_without_a_connector_there_is_only_the_aggregated_role() -> None:
    alone = make_deployment(kv_connector="")

    assert codes(deployment=alone, role=Role.PREFILL) == ["no-kv-connector"]
    assert codes(deployment=alone, role=Role.AGGREGATED) == []


@pytest.mark.parametrize(
    ("role", "gpus", "peer_gpus", "refused"),
    [
        (Role.PREFILL, 8, 4, True),
        (Role.PREFILL, 4, 8, False),
        (Role.PREFILL, 4, 4, False),
        (Role.DECODE, 4, 8, True),
        (Role.DECODE, 8, 4, False),
    ],
)
def test_prefill_never_spans_more_gpus_than_decode(role: Role, gpus: int, peer_gpus: int, refused: bool) -> None:
    peer = make_peer(Role.DECODE if role is Role.PREFILL else Role.PREFILL, gpus=peer_gpus)

    found = problems(make_partition(gpus=gpus), LLAMA_70B, role, peers=(peer,))

    assert [problem.code for problem in found] == (["pair-prefill-tp"] if refused else [])
    assert all(problem.forceable and "Prefill would span 8 GPUs and decode 4" in problem.message for problem in found)


def test_only_the_opposite_role_of_the_same_deployment_is_a_partner() -> None:
    strangers = (
        make_peer(Role.DECODE, 5, gpus=1),
        make_peer(Role.AGGREGATED, 6, gpus=1),
        make_peer(Role.PREFILL, 7, gpus=8, deployment="other"),
        make_peer(Role.PREFILL, 1, gpus=8),  # this partition itself, before its role changes
    )

    assert codes(make_partition(1, gpus=4), LLAMA_70B, Role.DECODE, peers=strangers) == []


def test_pairs_need_the_same_engine_version_even_by_force() -> None:
    peer = make_peer(Role.PREFILL, engine_version="0.31.0")

    found = problems(peers=(peer,))

    assert [problem.code for problem in found] == ["pair-engine-version"]
    assert blocking(found, force=True) == found
    for text in ("0.32.0", "0.31.0", "a/p9"):
        assert text in found[0].message


def test_an_unknown_engine_version_is_not_held_against_anyone() -> None:
    assert codes(peers=(make_peer(Role.PREFILL, engine_version=""),)) == []
    assert codes(node=make_node(engine_version=""), peers=(make_peer(Role.PREFILL),)) == []


def test_a_relabelled_engine_keeps_its_version_and_a_new_one_has_its_nodes() -> None:
    old = make_peer(Role.PREFILL, engine_version="0.31.0")
    running = make_partition(deployment="chat", role=Role.PREFILL, phase=Phase.READY, engine_version="0.31.0")

    assert codes(running, peers=(old,)) == []
    assert codes(make_partition(engine_version="0.31.0"), peers=(old,)) == ["pair-engine-version"]


@pytest.mark.parametrize(
    ("prefill", "decode", "code"),
    [
        (("--dtype", "float16"), (), "pair-dtype"),
        (("--kv-cache-dtype=fp8",), (), "pair-kv-dtype"),
        (("--block-size", "16"), ("--block-size", "32"), "pair-block-size"),
        ((), ("--attention-backend", "FLASHINFER"), "pair-attention-backend"),
    ],
)
def test_both_roles_must_lay_out_kv_blocks_alike(prefill: tuple[str, ...], decode: tuple[str, ...], code: str) -> None:
    deployment = make_deployment(prefill_args=prefill, decode_args=decode)

    found = problems(deployment=deployment)

    assert [(problem.code, problem.forceable) for problem in found] == [(code, True)]
    assert codes(deployment=deployment, role=Role.AGGREGATED) == []


@pytest.mark.parametrize(
    ("prefill", "decode"),
    [
        (("--dtype", "bfloat16"), ()),  # what its config says anyway
        (("--dtype", "auto"), ("--dtype=bfloat16",)),
        (("--kv-cache-dtype", "fp8"), ("--kv-cache-dtype", "fp8_e4m3")),
        (("--max-num-seqs", "4"), ("--max-num-seqs", "256")),
    ],
)
def test_the_same_said_differently_is_no_difference(prefill: tuple[str, ...], decode: tuple[str, ...]) -> None:
    assert codes(deployment=make_deployment(prefill_args=prefill, decode_args=decode)) == []


def test_a_pair_does_not_mix_gpus_and_cpu_slots() -> None:
    peer = make_peer(Role.PREFILL, gpus=make_slots(1))

    (problem,) = problems(peers=(peer,))

    assert (problem.code, problem.forceable) == ("pair-device-kinds", False)
    assert "NVIDIA GPUs" in problem.message
    assert "CPU slots" in problem.message


def test_force_overrules_only_what_may_be_overruled() -> None:
    found = problems(make_partition(gpus=1), LLAMA_70B, node=make_node(schedulable=False))

    assert [problem.code for problem in blocking(found)] == ["node-cordoned", "memory"]
    assert [problem.code for problem in blocking(found, force=True)] == ["node-cordoned"]


# --- candidates -------------------------------------------------------------------------------------------


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


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_a_pair_is_judged_alike_from_both_sides(prefill: int, decode: int) -> None:
    deployment = make_deployment(configs.LLAMA_70B, 10**9)
    as_prefill = codes(
        make_partition(1, gpus=prefill), deployment, Role.PREFILL, peers=(make_peer(Role.DECODE, 2, decode),)
    )
    as_decode = codes(
        make_partition(2, gpus=decode), deployment, Role.DECODE, peers=(make_peer(Role.PREFILL, 1, prefill),)
    )

    assert as_prefill == as_decode
