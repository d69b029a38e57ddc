"""Where a role may go: a test for each refusal, then the order of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.model_facts import ModelFacts
from controlplane.domain.placement import blocking, memory_fit
from controlplane.domain.types import DeploymentView, Role
from tests.domain import configs
from tests.domain.views import (
    NOW,
    codes,
    make_deployment,
    make_gpu,
    make_gpus,
    make_node,
    make_partition,
    make_slots,
    problems,
)

SMALL_LLAMA = make_deployment({**configs.LLAMA_70B, "num_hidden_layers": 8}, 14 * 10**9)  # fits everywhere
LLAMA_70B = make_deployment(configs.LLAMA_70B, configs.LLAMA_70B_BYTES)


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


def test_force_overrules_only_what_may_be_overruled() -> None:
    found = problems(make_partition(gpus=1), LLAMA_70B, node=make_node(schedulable=False))

    assert [problem.code for problem in blocking(found)] == ["node-cordoned", "memory"]
    assert [problem.code for problem in blocking(found, force=True)] == ["node-cordoned"]
