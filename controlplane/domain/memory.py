"""Whether a model fits on a GPU, in vLLM's own arithmetic, with the numbers for people to check.

vLLM 0.32 (v1/worker/utils.request_memory and gpu_worker.determine_available_memory) takes

    requested = ceil(total memory x gpu_memory_utilization)
    KV cache  = requested - weights - peak activation - what CUDA, NCCL and graphs hold

and refuses to start where the KV cache cannot hold one request of the full context. So it fits when

    weights / TP + overhead + KV(concurrency x context) <= requested

with KV per token and GPU = layers x 2 x max(1, kv_heads / TP) x head_dim x bytes: heads are replicated where
there are more GPUs than KV heads. With MLA it is layers x (kv_lora_rank + qk_rope_head_dim) x bytes, whole on
every GPU. With `cpu`, `tp` slots of `gpu_memory_bytes` each serve one rank: their memory adds up, all of it is
available, weights are not divided, and the process takes about 0.7 GB for itself. Its KV cache is as large as the
node agent makes it where --kv-cache-memory-bytes does not say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from controlplane.domain import engine_args
from controlplane.domain.model_config import KV_ELEMENT_BYTES
from controlplane.domain.model_facts import ModelFacts

GIB = 2**30
UTILIZATION = 0.9  # vLLM 0.32 takes 0.92 where nothing is said, earlier versions 0.9: count on the lower
BLOCK_TOKENS = 16  # vLLM's default KV block on GPUs
CPU_BLOCK_TOKENS = 32  # what the agent asks for on CPU slots
ELEMENT_BYTES = {
    "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "fp8_inc": 1, "fp8_ds_mla": 1,
    "bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4,
}  # fmt: skip

# Estimates, on the high side: vLLM measures these by a trial run at start, and here nothing has run yet. They were
# held against logs of vLLM on H100s: 0.6 GiB non-torch at TP 4; up to 2 GiB of CUDA graphs, mostly under 1; and
# gpt-oss-120b, which with 1024 sequences leaves nothing of 80 GB for the KV cache.
GPU_CONTEXT_BYTES = int(0.7 * GIB)  # CUDA context, kernels, libraries
NCCL_BYTES = int(0.5 * GIB)  # communication buffers, with more than one GPU
CUDA_GRAPHS_BYTES = 1 * GIB
LOGIT_BYTES = 26  # in the sampler's trial run: 16-bit logit, 32-bit copy, sorted, its index, probability and their sum
# Weights that grow as they are loaded: the kernels pad. gpt-oss-120b: 60.8 GiB on disk, 64.4 to 66.0 on an H100.
LOADED = {"mxfp4": 1.085}
# Measured with vLLM 0.32 on CPU: an engine of a 270 MB model holds 0.69 GB beside its mapped weights.
CPU_PROCESS_BYTES = 700_000_000
CPU_KV_CAP_BYTES = 256 * 2**20
CPU_KV_FLOOR_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """Bytes on one GPU. `fits` is None where nothing could be checked; `note` then says why."""

    fits: bool | None
    fits_at_best: bool | None  # with layers that keep a sliding window counted so; the engine may manage this
    note: str
    tp: int
    concurrency: int
    context_tokens: int
    gpu_memory_bytes: int
    available_bytes: int
    weights_bytes: int | None
    kv_bytes: int | None
    overhead_bytes: int
    needed_bytes: int | None
    kv_bytes_per_token: int | None
    kv_tokens_capacity: int | None
    max_concurrency_at_context: float | None

    @property
    def checked(self) -> bool:
        return self.fits is not None

    @property
    def short_bytes(self) -> int:
        """How much is missing; 0 where it fits or is unknown."""
        return max(0, (self.needed_bytes or 0) - self.available_bytes)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "checked": self.checked, "short_bytes": self.short_bytes}


@dataclass(frozen=True, slots=True)
class EngineShape:
    """What engine arguments change about memory. None = the engine's default for that device."""

    utilization: float = UTILIZATION
    batched_tokens: int | None = None  # --max-num-batched-tokens
    max_seqs: int | None = None  # --max-num-seqs
    block_tokens: int = BLOCK_TOKENS  # --block-size
    kv_element_bytes: int = KV_ELEMENT_BYTES  # --kv-cache-dtype
    kv_cache_bytes: int | None = None  # --kv-cache-memory-bytes: reserved as given, utilization aside
    eager: bool = False  # --enforce-eager: no CUDA graphs


def engine_shape(args: Sequence[str], *, cpu: bool = False) -> EngineShape:
    """The shape that these engine arguments ask for."""
    element = ELEMENT_BYTES.get(engine_args.value_of(args, "--kv-cache-dtype") or "")
    if element is None:
        element = ELEMENT_BYTES.get(engine_args.value_of(args, "--dtype") or "", KV_ELEMENT_BYTES)
    utilization = engine_args.float_value(args, "--gpu-memory-utilization")
    if utilization is None:
        utilization = engine_args.float_value(args, "--device-memory-utilization")
    return EngineShape(
        utilization=utilization if utilization is not None and 0 < utilization <= 1 else UTILIZATION,
        batched_tokens=_positive(args, "--max-num-batched-tokens"),
        max_seqs=_positive(args, "--max-num-seqs"),
        block_tokens=_positive(args, "--block-size") or (CPU_BLOCK_TOKENS if cpu else BLOCK_TOKENS),
        kv_element_bytes=element,
        kv_cache_bytes=_positive(args, "--kv-cache-memory-bytes"),
        eager=engine_args.value_of(args, "--enforce-eager") is not None,
    )


def fit(
    facts: ModelFacts,
    *,
    tp: int,
    gpu_memory_bytes: int,
    concurrency: int,
    context_tokens: int,
    utilization: float = UTILIZATION,
    cpu: bool = False,
    shape: EngineShape | None = None,
) -> MemoryFit:
    """Numbers for one GPU of `tp`, by the arithmetic above; raises nothing: `note` says what is unknown."""
    shape = shape or EngineShape(utilization=utilization)
    if cpu:
        gpu_memory_bytes, tp, shape = _one_slot(gpu_memory_bytes * tp, shape)
    available = _available(gpu_memory_bytes, shape, cpu=cpu)
    overhead = overhead_bytes(facts, tp=tp, gpu_memory_bytes=gpu_memory_bytes, shape=shape, cpu=cpu)
    weights = loaded_bytes(facts, tp)
    per_token = kv_bytes_per_token(facts, tp, shape.kv_element_bytes) if facts.is_known else None
    kv = None if per_token is None else concurrency * _whole_blocks(context_tokens, shape) * per_token
    best = None if kv is None else _least_kv(facts, kv, context_tokens=context_tokens, shape=shape)
    room = None if weights is None else _room(available - weights - overhead, shape)
    capacity = None if room is None or not per_token else _capacity(room, per_token, shape)
    return MemoryFit(
        fits=None if room is None or kv is None else kv <= room,
        fits_at_best=None if room is None or best is None else best <= room,
        note=_note(facts),
        tp=tp,
        concurrency=concurrency,
        context_tokens=context_tokens,
        gpu_memory_bytes=gpu_memory_bytes,
        available_bytes=available,
        weights_bytes=weights,
        kv_bytes=kv,
        overhead_bytes=overhead,
        needed_bytes=None if weights is None or kv is None else weights + overhead + max(kv, shape.kv_cache_bytes or 0),
        kv_bytes_per_token=per_token,
        kv_tokens_capacity=capacity,
        max_concurrency_at_context=_concurrency(capacity, context_tokens, shape),
    )


def _one_slot(memory_bytes: int, shape: EngineShape) -> tuple[int, int, EngineShape]:
    """CPU slots together, as one device without tensor parallelism."""
    return memory_bytes, 1, replace(shape, kv_cache_bytes=shape.kv_cache_bytes or cpu_kv_bytes(memory_bytes))


def _available(memory_bytes: int, shape: EngineShape, *, cpu: bool) -> int:
    """A KV cache that is reserved by hand sets the utilization aside."""
    whole = cpu or shape.kv_cache_bytes is not None
    return memory_bytes if whole else math.ceil(memory_bytes * shape.utilization)


def cpu_kv_bytes(memory_bytes: int) -> int:
    """What an engine on CPU slots keeps for KV blocks when nobody says. The agent applies the same rule."""
    return max(CPU_KV_FLOOR_BYTES, min(CPU_KV_CAP_BYTES, memory_bytes // 8))


def loaded_bytes(facts: ModelFacts, tp: int) -> int | None:
    """Weights on each GPU; None where their size is unknown."""
    if facts.parameter_bytes is None:
        return None
    return math.ceil(facts.parameter_bytes * LOADED.get(facts.quantization or "", 1.0) / tp)


def kv_bytes_per_token(facts: ModelFacts, tp: int, element_bytes: int = KV_ELEMENT_BYTES) -> int:
    """Bytes of KV one token takes on each GPU."""
    heads_here = 1 if facts.is_mla else max(1, math.ceil(facts.kv_heads / tp))
    vectors = 1 if facts.is_mla else 2 * heads_here
    return facts.kv_layers * vectors * facts.head_dim * element_bytes


def overhead_bytes(facts: ModelFacts, *, tp: int, gpu_memory_bytes: int, shape: EngineShape, cpu: bool) -> int:
    """What an engine holds beside weights and KV cache, estimated."""
    if cpu:
        return CPU_PROCESS_BYTES
    graphs = 0 if shape.eager else CUDA_GRAPHS_BYTES
    fixed = GPU_CONTEXT_BYTES + graphs + (NCCL_BYTES if tp > 1 else 0)
    return fixed + _activation_bytes(facts, tp, gpu_memory_bytes, shape)


def default_batch(gpu_memory_bytes: int) -> tuple[int, int]:
    """(batched tokens, sequences) that vLLM's server takes when not told (engine/arg_utils)."""
    if gpu_memory_bytes >= 160 * GIB:
        return 16384, 1024
    return (8192, 1024) if gpu_memory_bytes >= 70 * GIB else (2048, 256)


def _activation_bytes(facts: ModelFacts, tp: int, gpu_memory_bytes: int, shape: EngineShape) -> int:
    """Peak of the trial run: the widest layer for a full batch, then the logits of all sequences."""
    tokens, seqs = default_batch(gpu_memory_bytes)
    tokens, seqs = shape.batched_tokens or tokens, shape.max_seqs or seqs
    chosen = facts.experts_per_token
    routed = chosen * (3 * (facts.moe_intermediate_size or facts.intermediate_size) / tp + facts.hidden_size)
    dense = 3 * (facts.intermediate_size or 4 * facts.hidden_size) / tp
    layer = tokens * 2 * (2 * facts.hidden_size + (routed if chosen else dense))
    return math.ceil(layer) + min(seqs, tokens) * facts.vocab_size * LOGIT_BYTES


def _room(left: int, shape: EngineShape) -> int:
    """Bytes for KV: all that weights and overhead leave, or what was reserved by hand. Negative: it cannot start."""
    if shape.kv_cache_bytes is None:
        return left
    return shape.kv_cache_bytes if shape.kv_cache_bytes <= left else -1


def _least_kv(facts: ModelFacts, kv: int, *, context_tokens: int, shape: EngineShape) -> int:
    """KV bytes if windowed layers keep their window and the batch being computed, as vLLM's hybrid manager does."""
    if not facts.sliding_window or not facts.windowed_layers or context_tokens <= 0:
        return kv
    most = _whole_blocks(context_tokens, shape)
    kept = _whole_blocks(facts.sliding_window - 1 + (shape.batched_tokens or 8192), shape) + shape.block_tokens
    share = min(facts.windowed_layers, facts.kv_layers) / facts.kv_layers
    return math.ceil(kv * (1 - share + share * min(kept, most) / most))


def _whole_blocks(tokens: int, shape: EngineShape) -> int:
    return math.ceil(tokens / shape.block_tokens) * shape.block_tokens


def _capacity(room: int, per_token: int, shape: EngineShape) -> int:
    return max(0, room) // (per_token * shape.block_tokens) * shape.block_tokens


def _concurrency(capacity: int | None, context_tokens: int, shape: EngineShape) -> float | None:
    if capacity is None or context_tokens <= 0:
        return None
    return capacity * 100 // _whole_blocks(context_tokens, shape) / 100  # rounded down: 7.996 is not 8


def _positive(args: Sequence[str], flag: str) -> int | None:
    value = engine_args.int_value(args, flag)
    return value if value is not None and value > 0 else None


def _note(facts: ModelFacts) -> str:
    if not facts.is_known:
        return "Not checked: nothing is known of this model until the engine has loaded it."
    if facts.parameter_bytes is None:
        return "Not checked: the size of the weights is unknown."
    return ""
