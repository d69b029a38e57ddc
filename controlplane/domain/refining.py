"""An engine's laws, held against live traffic: a factor on each, where enough was seen and the two agree roughly. Pure.

A profile is measured on an idle engine with made-up prompts. Real ones find prefixes in the cache, run beside other
work and stream to slow clients: what they took over what the law says tells how far off it is. For a prompt the lower
quartile counts, for most that took longer waited; for tokens the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controlplane.domain.profiles import Fit, Knee, PrefillLaw, Speed

FEWEST = 50  # pairs, below which they tell nothing
FARTHEST = 2.0  # a factor beyond it, or below its inverse, is no refinement: the profile is of something else
PROMPT_QUANTILE, TOKEN_QUANTILE = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class Live:
    """What was seen, in ms. `prompts`: (tokens that were computed, until the first token); `decode`: (sequences at
    once, their mean context, between tokens)."""

    prompts: Sequence[tuple[float, float]] = ()
    decode: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class Refined:
    """`prefill`, `decode`: the factors that its laws were multiplied by; None: too little was seen, or too far off."""

    speed: Speed
    prefill: float | None
    decode: float | None
    notes: tuple[str, ...]


def refine(speed: Speed, live: Live) -> Refined:
    """The same engine with the times that live traffic shows."""
    law, decode = speed.prefill.law, speed.decode.law
    budget = speed.knee.tokens
    first = _ratio([(took, law.prompt_ms(tokens, budget)) for tokens, took in live.prompts], PROMPT_QUANTILE)
    between = _ratio([(took, decode.itl_ms(batch, context)) for batch, context, took in live.decode], TOKEN_QUANTILE)
    notes = [
        *_told("prompts", first, len(live.prompts), "requests"),
        *_told("tokens", between, len(live.decode), "minutes"),
    ]
    factors = (_usable(first), _usable(between))
    return Refined(_scaled(speed, factors[0] or 1.0, factors[1] or 1.0), *factors, tuple(notes))


def _ratio(pairs: Sequence[tuple[float, float]], quantile: float) -> float | None:
    ratios = [took / said for took, said in pairs if said > 0 and took > 0]
    return float(np.quantile(ratios, quantile)) if len(ratios) >= FEWEST else None


def _usable(ratio: float | None) -> float | None:
    return ratio if ratio is not None and 1.0 / FARTHEST <= ratio <= FARTHEST else None


def _told(what: str, ratio: float | None, number: int, of: str) -> list[str]:
    if ratio is None:
        return []
    if _usable(ratio) is None:
        return [f"live {what} take {ratio:.2f} times what the profile says ({number} {of}): measure it anew"]
    return [f"live {what} take {ratio:.2f} times what the profile says ({number} {of}), which is counted"]


def _scaled(speed: Speed, prefill: float, decode: float) -> Speed:
    law, knee = speed.prefill.law, speed.knee
    slower = PrefillLaw(law.floor_ms * prefill, law.a * prefill, law.b * prefill, law.c * prefill, law.sizes, law.ratio)
    tokens = speed.decode.law
    slower_tokens = replace(tokens, o=tokens.o * decode, u=tokens.u * decode, v=tokens.v * decode)
    return replace(
        speed,
        prefill=Fit(slower, speed.prefill.errors, speed.prefill.left_out),
        decode=Fit(slower_tokens, speed.decode.errors, speed.decode.left_out),
        knee=Knee(knee.tokens, knee.plateau / prefill, knee.fraction, knee.measured),
    )
