"""Reads a Hugging Face config.json as vLLM does: which key holds what, and what it means when one is missing.

Follows vLLM 0.32 `transformers_utils/model_arch_config_convertor.py` for the names and their defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.domain.problems import FactsError

MAX_LAYERS = 4096
INCOMPLETE = "model-incomplete"
_LARGEST = 2**40  # no dimension of a model comes near; beyond it a config is broken or hostile

_KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim")
_INTERMEDIATE = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
_EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts", "moe_topk")
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config", "language_model")
_OTHER_SENSES = ("vision_config", "audio_config", "vision_tower", "image_token_id", "image_token_index")

DTYPES = frozenset({"float32", "float", "float16", "half", "bfloat16"})
KV_ELEMENT_BYTES = 2  # float32 weights are served in 16 bits too; --kv-cache-dtype and --dtype can change it

# Transformers writes no key that equals its class's default; multimodal configs often leave these out.
_LIBRARY_DEFAULTS: dict[str, dict[str, int]] = {
    "llama": {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 11008},
    "mistral": {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
                "intermediate_size": 14336},
    "gemma2": {"num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
               "hidden_size": 2304, "intermediate_size": 9216, "vocab_size": 256000, "sliding_window": 4096},
    "gemma3_text": {"num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                    "hidden_size": 2304, "intermediate_size": 9216, "vocab_size": 262208, "sliding_window": 4096,
                    "max_position_embeddings": 131072},
}  # fmt: skip

# Model types whose blocks keep a running state beside, or instead of, a KV cache.
_HYBRID_TYPES = (
    "mamba", "jamba", "bamba", "zamba", "falcon_h1", "falcon_mamba", "nemotron_h", "nemotron_nas_h", "qwen3_next",
    "qwen3_5", "granitemoehybrid", "granite_moe_hybrid", "lfm2", "rwkv", "recurrent_gemma", "minimax_text",
    "minimax_m1", "plamo2", "plamo_2", "kimi_linear", "olmo_hybrid", "bailing_hybrid", "phi4flash", "hunyuan_linear",
)  # fmt: skip
_HYBRID_KEYS = (
    "mamba_d_state", "ssm_state_size", "mamba_num_heads", "hybrid_override_pattern", "layers_block_type",
    "attn_layer_period", "linear_num_value_heads", "linear_attn_config", "attn_type_list", "full_attention_interval",
    "time_mix_extra_dim",
)  # fmt: skip
_STATE_KINDS = ("linear", "lightning", "recurrent", "mamba", "conv", "ssm", "rwkv", "delta")
_ATTENTION_NAMES = frozenset({"global", "local", "full", "sliding", "dense", "sparse", "*"})
_WINDOW_KINDS = frozenset({"sliding_attention", "chunked_attention", "sliding", "local", "local_attention",
                           "sliding_window_attention"})  # fmt: skip


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelFacts that a config tells."""
    if not isinstance(config, Mapping) or not config:
        raise FactsError("config.json does not hold a JSON object.", "Point at a folder saved by Transformers.")
    text = _text_config(config)
    text = {**_LIBRARY_DEFAULTS.get(_text(text.get("model_type")), {}), **text}
    layers = _need(text, _LAYERS, "number of layers", most=MAX_LAYERS)
    is_hybrid = _is_hybrid(config, text)
    window, windowed = _windows(text, _layer_kinds(text), layers)
    dtype = _dtype(config, text)
    return {
        **_names(config, text),
        **_attention(text, layers, is_hybrid=is_hybrid),
        "layers": layers,
        "intermediate_size": _first(text, _INTERMEDIATE),
        "moe_intermediate_size": _first(text, ("moe_intermediate_size",)),
        "vocab_size": _first(text, ("vocab_size",)) or _first(config, ("vocab_size",)),
        "context_length": _context(text) or _context(config),
        "dtype": dtype,
        "experts": _first(text, _EXPERTS),
        "experts_per_token": _first(text, _EXPERTS_PER_TOKEN),
        "tied_embeddings": bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        "is_hybrid": is_hybrid,
        "is_multimodal": any(key in config for key in (*_TEXT_CONFIGS, *_OTHER_SENSES)),
        "sliding_window": window,
        "windowed_layers": windowed,
        "warnings": tuple(_warnings(dtype, is_hybrid=is_hybrid, window=window, windowed=windowed, layers=layers)),
    }


def _attention(text: Mapping[str, Any], layers: int, *, is_hybrid: bool) -> dict[str, Any]:
    """Heads, and what a token costs in KV cache."""
    heads, hidden = _first(text, _HEADS), _first(text, _HIDDEN)
    if not heads and not is_hybrid:
        raise _missing("number of attention heads", _HEADS)
    is_mla = _first(text, ("kv_lora_rank",)) > 0
    kv_heads = _kv_heads(text, heads)
    head_dim = _head_dim(text, hidden, heads, is_mla=is_mla)
    if heads and not head_dim:
        raise _missing("size of an attention head", ("head_dim", *_HIDDEN))
    kv_layers = _kv_layers(_layer_kinds(text), layers, heads)
    vectors = 1 if is_mla else 2 * kv_heads
    return {
        "hidden_size": hidden,
        "heads": heads,
        "kv_heads": 1 if is_mla else kv_heads,
        "head_dim": head_dim,
        "is_mla": is_mla,
        "kv_layers": kv_layers,
        "kv_bytes_per_token": kv_layers * vectors * head_dim * KV_ELEMENT_BYTES,
    }


def read_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """What even a config without numbers tells."""
    return _names(config, _text_config(config))


def _names(config: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architecture": _architecture(config, text),
        "model_type": _text(text.get("model_type")) or _text(config.get("model_type")),
        "quantization": _quantization(config, text),
    }


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language part of a multimodal config, which may lie two levels down (Qwen-Omni's thinker)."""
    for key in _TEXT_CONFIGS:
        nested = config.get(key)
        if isinstance(nested, Mapping) and nested:
            deeper = nested.get("text_config")
            nested = deeper if isinstance(deeper, Mapping) and deeper else nested
            if _first(nested, _LAYERS) or not _first(config, _LAYERS):
                return nested
    return config


def _architecture(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    for source in (config, text):
        names = source.get("architectures")
        if isinstance(names, Sequence) and not isinstance(names, str) and names:
            return _text(names[0])
    return ""


def _kv_heads(text: Mapping[str, Any], heads: int) -> int:
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        return 1  # Falcon and GPT-BigCode: one KV head, and no key that says so
    found = _first(text, _KV_HEADS)
    if found > heads > 0:
        raise FactsError(f"The config gives {found} KV heads for {heads} attention heads.", "Check its config.json.")
    return found or heads


def _head_dim(text: Mapping[str, Any], hidden: int, heads: int, *, is_mla: bool) -> int:
    if is_mla:
        return _first(text, ("kv_lora_rank",)) + _first(text, ("qk_rope_head_dim",))
    given = _first(text, ("head_dim", "hidden_size_per_head", "kv_channels", "attention_head_dim"))
    return given or (hidden // heads if heads else 0)


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    for source in (config, text):
        for key in ("dtype", "torch_dtype"):
            name = _text(source.get(key)).removeprefix("torch.")
            if name in DTYPES:
                return {"float": "float32", "half": "float16"}.get(name, name)
    return ""


def _quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    for source in (config, text):
        for key in ("quantization_config", "compression_config"):
            found = source.get(key)
            if isinstance(found, Mapping):
                method = _text(found.get("quant_method")).lower().replace("compressed_tensors", "compressed-tensors")
                return method or _modelopt(found)
    return None


def _modelopt(found: Mapping[str, Any]) -> str:
    inner = found.get("quantization")
    algorithm = _text(inner.get("quant_algo")) if isinstance(inner, Mapping) else _text(found.get("quant_algo"))
    return f"modelopt-{algorithm.lower()}" if algorithm else "unnamed"


def _is_hybrid(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    kinds = _layer_kinds(text)
    if kinds:
        return any(not _is_attention(kind) or kind == "hybrid" for kind in kinds)
    types = (_text(config.get("model_type")).lower(), _text(text.get("model_type")).lower())
    if any(name.startswith(_HYBRID_TYPES) for name in types):
        return True
    return any(bool(text.get(key)) for key in _HYBRID_KEYS)


def _is_attention(kind: str) -> bool:
    """Whether a layer of this kind keeps a KV cache; "hybrid" layers (Zamba) keep a state as well."""
    if any(state in kind for state in _STATE_KINDS):
        return False
    return kind in _ATTENTION_NAMES or kind == "hybrid" or "attention" in kind


def _layer_kinds(text: Mapping[str, Any]) -> tuple[str, ...]:
    """One kind per layer where the config lists them: `layer_types` (Transformers), `layers_block_type` (Zamba), or
    Nemotron-H's string of M (mamba), * (attention), - (MLP) and E (experts)."""
    pattern = _text(text.get("hybrid_override_pattern"))
    if pattern:
        return tuple("mamba" if char == "M" else char for char in pattern)
    for key in ("layer_types", "layers_block_type"):
        kinds = text.get(key)
        if isinstance(kinds, Sequence) and not isinstance(kinds, str) and 0 < len(kinds) <= MAX_LAYERS:
            return tuple(_text(kind).lower() for kind in kinds)
    return ()


def _kv_layers(kinds: Sequence[str], layers: int, heads: int) -> int:
    """Layers with a KV cache; all of them where the config does not list kinds (an upper bound)."""
    if not heads:
        return 0
    return sum(_is_attention(kind) for kind in kinds) if len(kinds) == layers else layers


def _windows(text: Mapping[str, Any], kinds: Sequence[str], layers: int) -> tuple[int | None, int]:
    """The sliding window and how many layers keep to it."""
    window = _first(text, ("sliding_window", "attention_chunk_size", "sliding_window_size"))
    if not window or text.get("use_sliding_window") is False:
        return None, 0
    if len(kinds) == layers:
        windowed = sum(kind in _WINDOW_KINDS for kind in kinds)
        return (window, windowed) if windowed else (None, 0)
    if pattern := _first(text, ("sliding_window_pattern",)):
        return window, layers - layers // pattern  # Gemma 3: every pattern-th layer attends to everything
    if _text(text.get("model_type")).startswith("gemma2"):
        return window, (layers + 1) // 2  # its layers alternate, beginning with a window
    if _text(text.get("model_type")).startswith("gemma3"):
        return window, layers - layers // 6
    return window, layers


def _warnings(dtype: str, *, is_hybrid: bool, window: int | None, windowed: int, layers: int) -> Iterator[str]:
    if not dtype:
        yield "The config names no dtype; 2 bytes per KV element are assumed."
    if is_hybrid:
        yield ("Hybrid model: some layers keep a running state, which prefill/decode pairs cannot be trusted to hand"
               " over; its memory beside the KV cache is not counted.")  # fmt: skip
    if window and windowed:
        yield f"{windowed} of {layers} layers keep {window} tokens; KV bytes per token is an upper bound."


def _context(text: Mapping[str, Any]) -> int:
    found = [value for key in _CONTEXT if (value := _number(text, key))]
    return min(found, default=0)


def _need(source: Mapping[str, Any], keys: Sequence[str], what: str, *, most: int) -> int:
    value = _first(source, keys)
    if not value:
        raise _missing(what, keys)
    if value > most:
        raise FactsError(f"The config gives {value} as {what}, more than {most}.", "Check its config.json.")
    return value


def _missing(what: str, keys: Sequence[str]) -> FactsError:
    return FactsError(f"The config does not tell the {what} (looked for {', '.join(keys)}).",
                      "Point at the folder of a language model saved by Transformers.", INCOMPLETE)  # fmt: skip


def _first(source: Mapping[str, Any], keys: Sequence[str]) -> int:
    return next((value for key in keys if (value := _number(source, key))), 0)


def _number(source: Mapping[str, Any], key: str) -> int:
    """A positive whole number, or 0. A list (one value per layer) gives its largest."""
    value = source.get(key)
    if isinstance(value, list):
        numbers = [item for item in value[:MAX_LAYERS] if isinstance(item, int) and not isinstance(item, bool)]
        value = max(numbers, default=0)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
        return 0
    return value


def _text(value: object) -> str:
    return value[:256] if isinstance(value, str) else ""
