"""What an engine should do by the rates of its GPUs alone, before anything is measured. Pure.

A step takes as long as the slower of its arithmetic and its memory traffic (Williams et al., "Roofline", CACM 2009).
Arithmetic is 2 FLOP a parameter and token, and 4 x layers x width x L / 2 of causal attention a token (Kaplan et al.,
arXiv 2001.08361); memory is the weights once and, in decode, the KV of all contexts.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.profiles import DecodePoint, PrefillPoint, Profile, Source

MFU = 0.45  # of the peak that prefill reaches; 0.4 to 0.55 is usual
BANDWIDTH = 0.8  # of the peak that decode reaches
STEP_MS = 2.0  # of launches and scheduling, of any step
TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 4, 16, 64, 256)
CONTEXTS = (256, 1024, 4096)


@dataclass(frozen=True, slots=True)
class Weights:
    """`active`: parameters that one token goes through; `read_bytes`: of weights that a step of many tokens reads."""

    model: str
    active: float
    read_bytes: float
    kv_bytes_per_token: float
    layers: int
    width: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one GPU, published or measured when it joined: of the dtype that the weights are computed in."""

    gpu: str
    tflops: float
    memory_gbs: float


def profile(weights: Weights, rates: Rates, tp: int, kv_tokens: int | None = None) -> Profile:
    """Points of the roofline, so that they are fitted, compared and replaced as measured ones are."""
    prefill = tuple(
        PrefillPoint(tokens, 1, tokens, prefill_ms(weights, rates, tp, tokens, tokens)) for tokens in TOKENS
    )
    decode = tuple(
        DecodePoint(batch, context, decode_ms(weights, rates, tp, batch, context))
        for batch in BATCHES
        for context in CONTEXTS
    )
    return Profile(weights.model, rates.gpu, tp, Source.ROOFLINE, prefill, decode, kv_tokens=kv_tokens)


def prefill_ms(weights: Weights, rates: Rates, tp: int, tokens: int, context: int) -> float:
    attention = 4.0 * weights.layers * weights.width * context / 2.0
    flop = tokens * (2.0 * weights.active + attention)
    return STEP_MS + max(1e3 * flop / (tp * rates.tflops * 1e12 * MFU), _read_ms(weights.read_bytes, rates, tp))


def decode_ms(weights: Weights, rates: Rates, tp: int, batch: int, context: int) -> float:
    flop = batch * 2.0 * weights.active
    moved = weights.read_bytes + batch * context * weights.kv_bytes_per_token
    return STEP_MS + max(1e3 * flop / (tp * rates.tflops * 1e12 * MFU), _read_ms(moved, rates, tp))


def _read_ms(moved: float, rates: Rates, tp: int) -> float:
    return 1e3 * moved / (tp * rates.memory_gbs * 1e9 * BANDWIDTH)
