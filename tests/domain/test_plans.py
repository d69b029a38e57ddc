"""gpt-oss-120b on one 8-GPU node, half in each phase, with the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.engine_args import validate
from controlplane.domain.memory import engine_shape, fit
from controlplane.domain.plans import PLANS, gpt_oss_120b_4p4d, node_plan, plan_problems
from controlplane.domain.types import DomainError, NodeView, Role
from tests.domain import configs
from tests.domain.views import NOW, make_deployment, make_gpus, make_linked_gpus, make_node, make_slots

SINGLES, FOURS = gpt_oss_120b_4p4d()
PLAIN = make_deployment(configs.GPT_OSS_120B, configs.GPT_OSS_120B_BYTES, name="gpt-oss-120b")
DEPLOYMENT = replace(PLAIN, engine_args=SINGLES.engine_args)


def codes(node: NodeView, key: str = SINGLES.key) -> list[str]:
    return [problem.code for problem in plan_problems(node_plan(key), DEPLOYMENT, node=node, now=NOW)]


def test_both_variants_give_four_gpus_to_each_phase() -> None:
    for plan in PLANS.values():
        gpus = dict.fromkeys(Role, 0)
        for group, role in zip(plan.groups, plan.roles, strict=True):
            gpus[role] += len(group)
        assert (gpus[Role.PREFILL], gpus[Role.DECODE]) == (4, 4)
    assert SINGLES.roles.count(Role.PREFILL) == SINGLES.roles.count(Role.DECODE) == 4
    assert [len(group) for group in FOURS.groups] == [4, 4]


@pytest.mark.parametrize("key", list(PLANS))
def test_both_variants_can_be_laid_over_eight_80_gb_gpus(key: str) -> None:
    assert codes(make_node(devices=make_linked_gpus(8)), key) == []


def test_one_80_gb_gpu_holds_the_weights_and_eight_requests_of_8192_tokens() -> None:
    """70.8 GB weights + 3.3 GB other + 4.8 GB KV = 79.0 of 81.2 GB."""
    shape = engine_shape(SINGLES.engine_args)
    found = fit(PLAIN.facts, tp=1, gpu_memory_bytes=configs.H100_BYTES, concurrency=8, context_tokens=8192, shape=shape)

    assert found.needed_bytes == pytest.approx(79.0e9, rel=0.01)
    assert found.fits is True
    assert found.kv_tokens_capacity == 95_856


def test_four_80_gb_gpus_need_no_arguments_and_hold_29_times_as_much_kv() -> None:
    found = fit(PLAIN.facts, tp=4, gpu_memory_bytes=configs.H100_BYTES, concurrency=1, context_tokens=8192)

    assert plan_problems(FOURS, PLAIN, node=make_node(devices=make_linked_gpus(8)), now=NOW) == []
    assert found.kv_tokens_capacity == 2_773_424


def test_without_its_arguments_one_gpu_is_too_small_and_the_fix_names_them() -> None:
    (problem,) = plan_problems(SINGLES, PLAIN, node=make_node(devices=make_linked_gpus(8)), now=NOW)

    assert problem.code == "memory"
    assert problem.fix == "Give gpt-oss-120b the arguments --gpu-memory-utilization 0.95 --max-num-seqs 128."


def test_the_arguments_of_a_plan_are_ones_that_a_deployment_may_have() -> None:
    for plan in PLANS.values():
        assert validate(plan.engine_args) == []


def test_positions_are_laid_over_whatever_indices_the_node_has() -> None:
    assert codes(make_node(devices=make_linked_gpus(8, first=2))) == []


def test_a_node_of_another_size_is_refused() -> None:
    assert codes(make_node(devices=make_gpus(4))) == ["plan-does-not-fit"]


def test_smaller_gpus_are_refused_once_for_all_partitions() -> None:
    assert codes(make_node(devices=make_gpus(8, memory_bytes=40 * 2**30))) == ["memory"]
    assert codes(make_node(devices=make_gpus(8, memory_bytes=40 * 2**30)), FOURS.key) == []


def test_cpu_slots_do_not_hold_it() -> None:
    assert codes(make_node(devices=make_slots(8))) == ["memory"]


def test_a_cordoned_node_or_a_lost_gpu_is_refused() -> None:
    assert codes(make_node(devices=make_gpus(8), schedulable=False)) == ["node-cordoned"]
    lost = (*make_gpus(7), make_gpus(8, health="lost")[7])
    assert codes(make_node(devices=lost)) == ["gpu-lost"]


def test_an_unknown_plan_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DomainError) as caught:
        node_plan("nothing")

    assert SINGLES.key in caught.value.problem.fix
