"""What a config tells, against published figures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.model_facts import FactsError, ModelFacts, from_config
from tests.domain import configs


def changed(config: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**config, **keys}


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (configs.LLAMA_70B, 320 * 1024),  # 80 layers x 8 KV heads x 128 x key and value x 2 bytes
        (configs.SMOLLM2_135M, 23_040),  # 30 x 3 x 64 x 2 x 2
        (configs.DEEPSEEK_V3, 70_272),  # MLA: 61 x (512 + 64) x 2
        (configs.GPT_OSS_120B, 73_728),  # 36 x 8 x 64 x 2 x 2
        (configs.MIXTRAL_8X7B, 128 * 1024),  # 32 x 8 x 128 x 2 x 2
        (configs.QWEN25_7B, 56 * 1024),  # 28 x 4 x 128 x 2 x 2
        (configs.GEMMA3_27B, 62 * 16 * 128 * 4),
        (configs.GEMMA3_4B, 34 * 4 * 256 * 4),
        (configs.PHI4, 200 * 1024),  # 40 x 10 x 128 x 2 x 2
    ],
)
def test_kv_bytes_per_token_are_the_published_ones(config: dict[str, Any], expected: int) -> None:
    assert from_config(config).kv_bytes_per_token == expected


def test_a_plain_llama_is_read_whole() -> None:
    facts = from_config(configs.SMOLLM2_135M, configs.SMOLLM2_BYTES)

    assert facts == ModelFacts(
        architecture="LlamaForCausalLM", model_type="llama", layers=30, hidden_size=576, intermediate_size=1536,
        heads=9, kv_heads=3, head_dim=64, vocab_size=49152, context_length=8192, dtype="bfloat16",
        tied_embeddings=True, parameter_bytes=configs.SMOLLM2_BYTES, kv_bytes_per_token=23_040, kv_layers=30,
    )  # fmt: skip
    assert facts.is_known


def test_without_kv_heads_every_head_has_its_own() -> None:
    facts = from_config(without(configs.LLAMA_70B, "num_key_value_heads"))

    assert facts.kv_heads == 64
    assert facts.kv_bytes_per_token == 80 * 64 * 128 * 4


def test_multi_query_attention_has_one_kv_head() -> None:
    falcon = {"model_type": "falcon", "num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544,
              "multi_query": True, "new_decoder_architecture": False, "torch_dtype": "bfloat16"}  # fmt: skip

    assert from_config(falcon).kv_heads == 1
    assert from_config(changed(falcon, new_decoder_architecture=True, num_kv_heads=8, num_attention_heads=128,
                               hidden_size=8192)).kv_heads == 8  # fmt: skip


def test_without_head_dim_it_is_hidden_size_over_heads() -> None:
    assert from_config(configs.LLAMA_70B).head_dim == 128
    assert from_config(changed(configs.LLAMA_70B, head_dim=256)).head_dim == 256
    assert from_config(changed(configs.LLAMA_70B, head_dim=None)).head_dim == 128


def test_gpt2_names_are_known() -> None:
    facts = from_config({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024})

    assert (facts.layers, facts.heads, facts.head_dim, facts.context_length) == (12, 12, 64, 1024)


def test_the_dtype_has_two_names_and_sometimes_a_prefix() -> None:
    base = without(configs.LLAMA_70B, "torch_dtype")

    assert from_config(changed(base, dtype="float16")).dtype == "float16"
    assert from_config(changed(base, torch_dtype="torch.bfloat16")).dtype == "bfloat16"
    assert from_config(changed(base, torch_dtype="half")).dtype == "float16"
    assert from_config(base).dtype == ""
    assert any("dtype" in warning for warning in from_config(base).warnings)


def test_mla_is_one_compressed_vector_for_all_heads() -> None:
    facts = from_config(configs.DEEPSEEK_V3, configs.DEEPSEEK_V3_BYTES)

    assert facts.is_mla
    assert (facts.heads, facts.kv_heads, facts.head_dim) == (128, 1, 576)
    assert (facts.experts, facts.experts_per_token, facts.moe_intermediate_size) == (256, 8, 2048)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "GPTQ"}, "gptq"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "compressed_tensors"}, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}, "modelopt-nvfp4"),
        ({"bits": 4}, "unnamed"),
    ],
)
def test_quantization_is_noted(found: dict[str, Any], expected: str) -> None:
    assert from_config(changed(configs.LLAMA_70B, quantization_config=found)).quantization == expected


def test_quantization_is_also_found_in_the_text_part_and_under_its_other_name() -> None:
    nested = {
        "model_type": "some_vl",
        "text_config": changed(configs.LLAMA_70B, quantization_config={"quant_method": "fp8"}),
    }

    assert from_config(nested).quantization == "fp8"
    assert from_config(changed(configs.LLAMA_70B, compression_config={"quant_method": "x"})).quantization == "x"
    assert from_config(configs.LLAMA_70B).quantization is None


@pytest.mark.parametrize("key", ["text_config", "llm_config", "language_config"])
def test_the_language_part_of_a_multimodal_config_counts(key: str) -> None:
    config = {"architectures": ["SomeVLForConditionalGeneration"], "model_type": "some_vl", key: configs.LLAMA_70B,
              "vision_config": {"num_hidden_layers": 27, "hidden_size": 1152}}  # fmt: skip

    facts = from_config(config)

    assert (facts.layers, facts.kv_heads, facts.is_multimodal) == (80, 8, True)
    assert facts.architecture == "SomeVLForConditionalGeneration"
    assert facts.model_type == "llama"


def test_the_text_part_may_lie_two_levels_down() -> None:
    omni = {"model_type": "qwen2_5_omni", "thinker_config": {"text_config": configs.QWEN25_7B}}

    assert from_config(omni).layers == 28


def test_a_text_part_may_leave_its_numbers_to_the_library() -> None:
    llava = {"model_type": "llava", "torch_dtype": "float16",
             "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}}  # fmt: skip

    facts = from_config(llava)

    assert (facts.layers, facts.heads, facts.kv_heads, facts.head_dim) == (32, 32, 32, 128)
    assert (from_config(configs.GEMMA3_4B).heads, from_config(configs.GEMMA3_4B).kv_heads) == (8, 4)


def test_windows_are_counted_where_layer_types_tell() -> None:
    facts = from_config(configs.GPT_OSS_120B)

    assert (facts.sliding_window, facts.windowed_layers, facts.kv_layers) == (128, 18, 36)
    assert not facts.is_hybrid
    assert any("upper bound" in warning for warning in facts.warnings)


def test_windows_follow_the_pattern_of_their_family() -> None:
    assert from_config(configs.GEMMA3_27B).windowed_layers == 52  # 62 layers, each sixth attends to everything
    assert from_config(configs.MISTRAL_7B_V01).windowed_layers == 32
    assert from_config(changed(configs.LLAMA_70B, sliding_window=512, sliding_window_pattern=4)).windowed_layers == 60
    gemma2 = {"model_type": "gemma2", "torch_dtype": "bfloat16", "sliding_window": 4096}
    assert from_config(gemma2).windowed_layers == 13


def test_a_window_that_is_switched_off_is_none() -> None:
    assert from_config(configs.QWEN25_7B).sliding_window is None
    assert from_config(configs.MIXTRAL_8X7B).sliding_window is None


def hybrid_of(model_type: str, **keys: Any) -> dict[str, Any]:
    return changed(configs.LLAMA_70B, model_type=model_type, **keys)


@pytest.mark.parametrize(
    "config",
    [
        configs.QWEN3_NEXT,
        hybrid_of("jamba", attn_layer_period=8, attn_layer_offset=4),
        hybrid_of("bamba"),
        hybrid_of("zamba2", layers_block_type=["mamba"] * 40 + ["hybrid"] * 40),
        hybrid_of("falcon_h1"),
        hybrid_of("nemotron_h", hybrid_override_pattern="M-M*" * 20),
        hybrid_of("granitemoehybrid", layer_types=["mamba"] * 70 + ["attention"] * 10),
        hybrid_of("lfm2", layer_types=["conv"] * 60 + ["full_attention"] * 20),
        hybrid_of("some_new_one", layer_types=["linear_attention", "full_attention"] * 40),
        hybrid_of("some_new_one", mamba_d_state=128),
        {"model_type": "mamba", "num_hidden_layers": 64, "hidden_size": 2560},
        {"model_type": "rwkv", "num_hidden_layers": 32, "hidden_size": 4096},
    ],
    ids=lambda config: str(config["model_type"]),
)
def test_models_with_a_running_state_are_flagged(config: dict[str, Any]) -> None:
    facts = from_config(config)

    assert facts.is_hybrid
    assert any("Hybrid" in warning for warning in facts.warnings)


@pytest.mark.parametrize("config", [configs.GPT_OSS_120B, configs.LLAMA_70B, configs.DEEPSEEK_V3, configs.GEMMA3_27B,
                                    configs.QWEN25_7B, configs.MIXTRAL_8X7B, configs.MISTRAL_7B_V01, configs.PHI4],
                         ids=lambda config: str(config["model_type"]))  # fmt: skip
def test_models_of_attention_alone_are_not(config: dict[str, Any]) -> None:
    assert not from_config(config).is_hybrid


def test_a_hybrid_family_whose_layers_all_attend_is_not_hybrid() -> None:
    assert not from_config(hybrid_of("granitemoehybrid", layer_types=["attention"] * 80)).is_hybrid


def test_only_attention_layers_of_a_hybrid_keep_a_kv_cache() -> None:
    facts = from_config(hybrid_of("nemotron_h", hybrid_override_pattern="M-M*" * 20))

    assert facts.kv_layers == 20
    assert facts.kv_bytes_per_token == 20 * 8 * 128 * 4


def test_a_config_without_numbers_is_kept_but_not_checked() -> None:
    facts = from_config({"model_type": "brand_new", "architectures": ["BrandNewForCausalLM"]}, 10**9)

    assert not facts.is_known
    assert (facts.architecture, facts.parameter_bytes) == ("BrandNewForCausalLM", 10**9)
    assert "not checked" in facts.warnings[0]


@pytest.mark.parametrize("config", [{}, {"hello": 1}, {"num_hidden_layers": 12}])
def test_what_is_no_model_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(FactsError) as caught:
        from_config(config)

    assert caught.value.fix


@pytest.mark.parametrize(
    "wrong",
    [{"num_hidden_layers": 10**9}, {"num_key_value_heads": 65}],
)
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FactsError):
        from_config(changed(configs.LLAMA_70B, **wrong))


def test_facts_survive_the_way_through_json() -> None:
    for config in (configs.GPT_OSS_120B, configs.DEEPSEEK_V3, configs.QWEN3_NEXT):
        facts = from_config(config, 5)
        assert ModelFacts.from_dict(facts.to_dict()) == facts


def test_facts_of_another_version_are_read_as_far_as_they_go() -> None:
    assert ModelFacts.from_dict({"layers": 3, "from_the_future": True}) == ModelFacts(layers=3)
    assert ModelFacts.from_dict({}) == ModelFacts()


def test_unknown_facts_say_why() -> None:
    facts = ModelFacts.unknown("Its folder is not on this machine.")

    assert not facts.is_known
    assert facts.warnings == ("Its folder is not on this machine.",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(sorted(configs.DEEPSEEK_V3 | configs.GPT_OSS_120B | {"text_config": 0, "layers_block_type": 0}))


@given(st.dictionaries(KEYS, JSON, max_size=8))
def test_no_config_breaks_the_reader(wild: dict[str, Any]) -> None:
    try:
        facts = from_config(changed(configs.LLAMA_70B, **wild))
    except FactsError as error:
        assert error.message
    else:
        assert facts.kv_bytes_per_token >= 0
        assert ModelFacts.from_dict(facts.to_dict()) == facts
