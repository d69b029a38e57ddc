"""Which prefill and decode engines may work together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.placement import blocking
from controlplane.domain.types import Phase, Role
from tests.domain import configs
from tests.domain.views import codes, make_deployment, make_node, make_partition, make_peer, make_slots, problems

LLAMA_70B = make_deployment(configs.LLAMA_70B, configs.LLAMA_70B_BYTES)


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
