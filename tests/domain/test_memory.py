"""Memory fit, against arithmetic done by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import memory
from controlplane.domain.memory import EngineShape, cpu_kv_bytes, engine_shape, fit, kv_bytes_per_token
from controlplane.domain.model_facts import ModelFacts, from_config
from tests.domain import configs
from tests.domain.configs import H100_BYTES
from workers.engines.vllm import cpu_kv_bytes as workers_cpu_kv_bytes

LLAMA_70B = from_config(configs.LLAMA_70B, configs.LLAMA_70B_BYTES)
DEEPSEEK_V3 = from_config(configs.DEEPSEEK_V3, configs.DEEPSEEK_V3_BYTES)
GPT_OSS = from_config(configs.GPT_OSS_120B, configs.GPT_OSS_120B_BYTES)
FEW_SEQUENCES = EngineShape(utilization=0.95, max_seqs=128)
SMOLLM2 = from_config(configs.SMOLLM2_135M, configs.SMOLLM2_BYTES)


@pytest.mark.parametrize(
    ("facts", "tp", "expected"),
    [
        (LLAMA_70B, 1, 327_680),
        (LLAMA_70B, 4, 81_920),
        (LLAMA_70B, 8, 40_960),
        (LLAMA_70B, 16, 40_960),  # eight KV heads on sixteen GPUs: each holds one, twice over
        (DEEPSEEK_V3, 1, 70_272),
        (DEEPSEEK_V3, 8, 70_272),  # the compressed vector lies whole on every GPU
        (GPT_OSS, 4, 18_432),
        (SMOLLM2, 1, 23_040),
    ],
)
def test_kv_bytes_per_gpu(facts: ModelFacts, tp: int, expected: int) -> None:
    assert kv_bytes_per_token(facts, tp) == expected


def test_the_numbers_add_up_as_the_engine_adds_them() -> None:
    found = fit(LLAMA_70B, tp=4, gpu_memory_bytes=H100_BYTES, concurrency=8, context_tokens=8192)

    assert found.available_bytes == 76_968_728_986  # 0.9 of 81559 MiB, rounded up
    assert found.weights_bytes == 35_276_853_248  # a fourth
    assert found.kv_bytes == 8 * 8192 * 81_920
    assert found.needed_bytes == found.weights_bytes + found.kv_bytes + found.overhead_bytes
    assert found.fits is True
    assert found.short_bytes == 0
    room = found.available_bytes - found.weights_bytes - found.overhead_bytes
    assert found.kv_tokens_capacity == room // 81_920 // 16 * 16
    assert found.max_concurrency_at_context == math.floor(found.kv_tokens_capacity / 8192 * 100) / 100


def test_requests_that_the_kv_cache_holds_are_rounded_down() -> None:
    assert memory._concurrency(63_964, 8_000, memory.EngineShape()) == 7.99  # 7.9955: not eight


def test_llama_70b_fits_no_single_80_gb_gpu() -> None:
    found = fit(LLAMA_70B, tp=1, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=2048)

    assert found.fits is False
    assert found.fits_at_best is False
    assert found.short_bytes > 64e9
    assert found.kv_tokens_capacity == 0


def test_the_fit_flips_exactly_where_memory_ends() -> None:
    found = fit(SMOLLM2, tp=1, gpu_memory_bytes=8 * 2**30, concurrency=4, context_tokens=2048)
    capacity = found.kv_tokens_capacity
    assert capacity is not None

    at = fit(SMOLLM2, tp=1, gpu_memory_bytes=8 * 2**30, concurrency=1, context_tokens=capacity)
    past = fit(SMOLLM2, tp=1, gpu_memory_bytes=8 * 2**30, concurrency=1, context_tokens=capacity + 1)

    assert (at.fits, past.fits) == (True, False)


def test_a_request_takes_whole_blocks() -> None:
    found = fit(SMOLLM2, tp=1, gpu_memory_bytes=H100_BYTES, concurrency=3, context_tokens=17)

    assert found.kv_bytes == 3 * 32 * 23_040


def test_layers_with_a_window_need_less_at_best() -> None:
    found = fit(GPT_OSS, tp=1, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=131_072, shape=FEW_SEQUENCES)

    assert found.kv_bytes == 131_072 * 73_728  # 9.66 GB: all layers whole
    assert found.fits is False
    assert found.fits_at_best is True  # 18 layers keep 128 tokens and the batch: 5.1 GB


def test_gpt_oss_120b_fits_on_one_80_gb_gpu_with_few_sequences() -> None:
    found = fit(GPT_OSS, tp=1, gpu_memory_bytes=H100_BYTES, concurrency=8, context_tokens=8192, shape=FEW_SEQUENCES)

    assert found.weights_bytes == 70_832_600_646  # 60.8 GiB, padded by the kernels
    assert found.kv_bytes == 4_831_838_208  # 65,536 tokens
    assert found.overhead_bytes == pytest.approx(3.34e9, rel=0.01)
    assert found.needed_bytes == pytest.approx(79.0e9, rel=0.01)
    assert found.available_bytes == pytest.approx(81.2e9, rel=0.01)
    assert found.fits is True


def test_gpt_oss_120b_on_four_80_gb_gpus_holds_a_full_context_21_times() -> None:
    found = fit(GPT_OSS, tp=4, gpu_memory_bytes=H100_BYTES, concurrency=8, context_tokens=131_072)

    assert found.weights_bytes == 17_708_150_162
    assert found.fits is True
    assert found.max_concurrency_at_context == pytest.approx(21.2, abs=0.1)


LLAMA_8B = from_config(
    {**configs.LLAMA_70B, "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
     "intermediate_size": 14336}, 16_060_522_496)  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "gpu_gib", "shape", "logged_gib"),
    [
        # "Available KV cache memory" of vLLM on one H100: github.com/vllm-project/vllm, numbers 10511, 23278 and 27508
        (LLAMA_8B, 79.22, EngineShape(0.9, 8192, 256), 53.29),
        (GPT_OSS, 79.19, EngineShape(0.9), -2.14),
        (GPT_OSS, 79.19, EngineShape(0.95, 1024), 1.71),
    ],
    ids=["llama-3-8b", "gpt-oss-120b", "gpt-oss-120b-small-batch"],
)
def test_what_is_left_for_kv_is_near_what_engines_logged(
    facts: ModelFacts, gpu_gib: float, shape: EngineShape, logged_gib: float
) -> None:
    found = fit(facts, tp=1, gpu_memory_bytes=int(gpu_gib * 2**30), concurrency=1, context_tokens=1, shape=shape)
    assert found.weights_bytes is not None

    left = (found.available_bytes - found.weights_bytes - found.overhead_bytes) / 2**30

    assert left == pytest.approx(logged_gib, abs=1.25)


def test_an_engine_on_a_cpu_slot_keeps_a_share_of_it_for_kv_as_the_agent_does() -> None:
    found = fit(SMOLLM2, tp=1, gpu_memory_bytes=4 * 10**9, concurrency=4, context_tokens=2048, cpu=True)

    assert found.available_bytes == 4 * 10**9
    assert found.overhead_bytes == 700_000_000
    assert cpu_kv_bytes(4 * 10**9) == workers_cpu_kv_bytes(4 * 10**9) == 256 * 2**20
    assert found.needed_bytes == configs.SMOLLM2_BYTES + 700_000_000 + 256 * 2**20
    assert found.kv_tokens_capacity == 256 * 2**20 // (23_040 * 32) * 32
    assert found.fits is True


def test_more_requests_than_that_share_holds_do_not_fit_unless_more_is_kept() -> None:
    wanted = {"tp": 1, "gpu_memory_bytes": 4 * 10**9, "concurrency": 8, "context_tokens": 2048, "cpu": True}
    roomy = engine_shape(("--kv-cache-memory-bytes", str(512 * 2**20)), cpu=True)

    assert fit(SMOLLM2, **wanted).fits is False
    assert fit(SMOLLM2, **wanted, shape=roomy).fits is True


def test_cpu_slots_add_up_and_do_not_divide_the_weights() -> None:
    two = fit(SMOLLM2, tp=2, gpu_memory_bytes=10**9, concurrency=1, context_tokens=2048, cpu=True)

    assert (two.available_bytes, two.weights_bytes, two.tp) == (2 * 10**9, configs.SMOLLM2_BYTES, 1)


def test_nothing_known_is_not_checked() -> None:
    found = fit(ModelFacts.unknown(), tp=1, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=2048)

    assert (found.fits, found.fits_at_best, found.checked) == (None, None, False)
    assert (found.weights_bytes, found.kv_bytes, found.needed_bytes, found.kv_tokens_capacity) == (None,) * 4
    assert found.note.startswith("Not checked")


def test_unknown_weights_still_tell_the_kv_cache() -> None:
    facts = from_config(configs.LLAMA_70B)

    found = fit(facts, tp=8, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=2048)

    assert (found.fits, found.kv_bytes) == (None, 2048 * 40_960)
    assert "weights" in found.note


def test_a_reserved_kv_cache_sets_the_utilization_aside() -> None:
    shape = EngineShape(kv_cache_bytes=10**9)
    found = fit(SMOLLM2, tp=1, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=2048, shape=shape)

    assert found.available_bytes == H100_BYTES
    assert found.kv_tokens_capacity == 10**9 // (23_040 * 16) * 16
    assert found.fits is True

    shape = EngineShape(kv_cache_bytes=H100_BYTES)
    found = fit(SMOLLM2, tp=1, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=2048, shape=shape)
    assert (found.fits, found.kv_tokens_capacity) == (False, 0)


def test_a_model_without_a_kv_cache_still_has_to_fit() -> None:
    mamba = from_config({"model_type": "mamba", "num_hidden_layers": 64, "hidden_size": 2560}, 100 * 10**9)

    for shape in (EngineShape(), EngineShape(kv_cache_bytes=10**9)):
        found = fit(mamba, tp=1, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=2048, shape=shape)
        assert found.fits is False


def test_engine_arguments_change_the_shape() -> None:
    args = ("--gpu-memory-utilization=0.5", "--max_num_batched_tokens", "2k", "--max-num-seqs", "16",
            "--block-size", "32", "--kv-cache-dtype", "fp8", "--enforce-eager")  # fmt: skip

    assert engine_shape(args) == EngineShape(0.5, 2000, 16, 32, 1, None, True)
    assert engine_shape(()) == EngineShape()
    assert engine_shape((), cpu=True).block_tokens == 32
    assert engine_shape(("--dtype", "float32")).kv_element_bytes == 4
    assert engine_shape(("--gpu-memory-utilization", "7")).utilization == memory.UTILIZATION


def test_an_fp8_kv_cache_takes_half() -> None:
    assert kv_bytes_per_token(LLAMA_70B, 1, element_bytes=1) == 163_840


def test_the_engines_default_batch_follows_the_gpu() -> None:
    assert memory.default_batch(24 * 2**30) == (2048, 256)
    assert memory.default_batch(H100_BYTES) == (8192, 1024)
    assert memory.default_batch(180 * 2**30) == (16384, 1024)


def test_the_fit_travels_as_json() -> None:
    found = fit(LLAMA_70B, tp=4, gpu_memory_bytes=H100_BYTES, concurrency=1, context_tokens=2048)

    assert json.loads(json.dumps(found.to_dict()))["checked"] is True


FACTS = st.sampled_from([LLAMA_70B, DEEPSEEK_V3, GPT_OSS, SMOLLM2])
ASKED = {
    "facts": FACTS,
    "tp": st.sampled_from([1, 2, 4, 8, 16]),
    "gpu_memory_bytes": st.integers(2**30, 2**38),
    "concurrency": st.integers(1, 512),
    "context_tokens": st.integers(1, 200_000),
}


@given(**ASKED)
def test_more_memory_never_makes_it_unfit(
    facts: ModelFacts, tp: int, gpu_memory_bytes: int, concurrency: int, context_tokens: int
) -> None:
    shape = EngineShape(batched_tokens=2048, max_seqs=64)  # the default batch grows with the GPU, and its memory too
    asked: dict[str, Any] = {"tp": tp, "concurrency": concurrency, "context_tokens": context_tokens, "shape": shape}
    small = fit(facts, gpu_memory_bytes=gpu_memory_bytes, **asked)
    large = fit(facts, gpu_memory_bytes=2 * gpu_memory_bytes, **asked)

    assert large.fits or not small.fits
    assert (large.kv_tokens_capacity or 0) >= (small.kv_tokens_capacity or 0)


@given(**ASKED)
def test_what_fits_fits_at_best_and_into_its_own_capacity(
    facts: ModelFacts, tp: int, gpu_memory_bytes: int, concurrency: int, context_tokens: int
) -> None:
    found = fit(facts, tp=tp, gpu_memory_bytes=gpu_memory_bytes, concurrency=concurrency, context_tokens=context_tokens)

    assert found.fits_at_best or not found.fits
    assert found.needed_bytes is not None
    assert found.fits == (found.needed_bytes <= found.available_bytes)
    if found.fits:
        assert (found.kv_tokens_capacity or 0) >= concurrency * context_tokens


@given(**ASKED)
def test_more_gpus_never_need_more_of_each(
    facts: ModelFacts, tp: int, gpu_memory_bytes: int, concurrency: int, context_tokens: int
) -> None:
    one = kv_bytes_per_token(facts, tp)
    two = kv_bytes_per_token(facts, 2 * tp)

    assert two <= one
    assert two * 2 * tp >= facts.kv_bytes_per_token  # together they hold all of it at least once
