"""What an engine was measured to do, and the laws of it: how long a step of prefill and of decode takes. Pure.

Fitting them is `fitting`. They are those of Sarathi-Serve (arXiv 2403.02310) and Splitwise (arXiv 2311.18677), in
milliseconds:

    prefill   T(n, L) = max(t0, a + b n + c n L)     n tokens in one step, of prompts of L tokens each
    decode    ITL(B, ctx) = o + u B + v B ctx        B sequences with a context of ctx tokens on the mean
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy as np

Law = TypeVar("Law")
MOST_BATCH = 10**6  # sequences


class ProfileError(ValueError):
    """The points do not make a law; the message says what they lack."""


class Source(StrEnum):
    """Whence the points are."""

    MEASURED = "measured"
    IMPORTED = "imported"
    ROOFLINE = "roofline"


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """One step: `tokens` of `batch` prompts of `context` tokens each, in `step_ms`."""

    tokens: int
    batch: int
    context: int
    step_ms: float


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """`concurrency` sequences with `context` tokens each: `itl_ms` from one token of a sequence to its next."""

    concurrency: int
    context: int
    itl_ms: float


@dataclass(frozen=True, slots=True)
class Profile:
    """The points of one engine on `tp` GPUs of one name. `kv_tokens`, `max_num_seqs`: None where it is not known."""

    model: str
    gpu: str
    tp: int
    source: Source
    prefill: tuple[PrefillPoint, ...]
    decode: tuple[DecodePoint, ...]
    engine_version: str = ""
    flags: tuple[str, ...] = ()
    kv_tokens: int | None = None
    max_num_seqs: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "source": self.source.value}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Profile:
        """The inverse of `to_dict`. Raises ProfileError."""
        try:
            return cls(
                model=str(data["model"]),
                gpu=str(data["gpu"]),
                tp=int(data["tp"]),
                source=Source(data["source"]),
                prefill=tuple(PrefillPoint(**point) for point in data["prefill"]),
                decode=tuple(DecodePoint(**point) for point in data["decode"]),
                engine_version=str(data.get("engine_version", "")),
                flags=tuple(data.get("flags", ())),
                kv_tokens=data.get("kv_tokens"),
                max_num_seqs=data.get("max_num_seqs"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"not a profile: {error!r}") from error


@dataclass(frozen=True, slots=True)
class PrefillLaw:
    """`sizes`, `ratio`: measured over the line a + b n + c n L, by tokens; engines bend where the line does not."""

    floor_ms: float
    a: float
    b: float
    c: float
    sizes: tuple[float, ...] = ()
    ratio: tuple[float, ...] = ()

    def fitted_ms(self, tokens: float, context: float) -> float:
        return max(self.floor_ms, self.a + self.b * tokens + self.c * tokens * context)

    def step_ms(self, tokens: float, context: float) -> float:
        """As measured at the sizes that were, between them by interpolation."""
        bend = float(np.interp(tokens, self.sizes, self.ratio)) if self.sizes else 1.0
        return self.fitted_ms(tokens, context) * bend

    def prompt_ms(self, tokens: float, budget: int) -> float:
        """A prompt alone, in steps of at most `budget` tokens."""
        whole, rest = divmod(tokens, budget)
        return whole * self.step_ms(budget, tokens) + (self.step_ms(rest, tokens) if rest else 0.0)


@dataclass(frozen=True, slots=True)
class DecodeLaw:
    """`sizes`, `ratio`: measured over the line o + u B + v B ctx, by sequences: of a model with experts ever more are
    read until all are, which is no line."""

    o: float
    u: float
    v: float
    sizes: tuple[float, ...] = ()
    ratio: tuple[float, ...] = ()

    def fitted_ms(self, batch: float, context: float) -> float:
        return self.o + batch * (self.u + self.v * context)

    def bend(self, batch: float) -> float:
        return float(np.interp(batch, self.sizes, self.ratio)) if self.sizes else 1.0

    def itl_ms(self, batch: float, context: float) -> float:
        """As measured at the sizes that were, between them by interpolation."""
        return self.fitted_ms(batch, context) * self.bend(batch)

    def most(self, itl_ms: float, context: float) -> int:
        """The greatest batch up to which every one keeps to `itl_ms`; 0 where not even one sequence does."""
        if self.itl_ms(1, context) > itl_ms:
            return 0
        slope = self.u + self.v * context
        if slope <= 0:
            return MOST_BATCH
        least = min(self.ratio, default=1.0)
        most = int(min(MOST_BATCH, max(1.0, (itl_ms / least - self.o) / slope + 1e-9)))
        if not self.sizes:
            return most
        batches = np.arange(1, most + 1)
        over = (self.o + batches * slope) * np.interp(batches, self.sizes, self.ratio) > itl_ms + 1e-9
        return int(over.argmax()) if over.any() else most


@dataclass(frozen=True, slots=True)
class Fit(Generic[Law]):
    """`errors`: law over measured, less one, by point. `left_out`: places of points that no law of this kind meets."""

    law: Law
    errors: tuple[float, ...]
    left_out: tuple[int, ...] = ()

    @property
    def mean_error(self) -> float:
        kept = [abs(error) for place, error in enumerate(self.errors) if place not in self.left_out]
        return sum(kept) / len(kept) if kept else 0.0

    @property
    def worst_error(self) -> float:
        return max((abs(error) for place, error in enumerate(self.errors) if place not in self.left_out), default=0.0)


@dataclass(frozen=True, slots=True)
class Knee:
    """The smallest step that fills the GPU: `tokens` at which n / T(n) is `fraction` of `plateau` tokens a second.
    `measured`: read off the points; otherwise from the law, f / (1 - f) a / b."""

    tokens: int
    plateau: float
    fraction: float
    measured: bool


@dataclass(frozen=True, slots=True)
class Speed:
    """An engine as sizing sees it."""

    profile: Profile
    prefill: Fit[PrefillLaw]
    decode: Fit[DecodeLaw]
    knee: Knee
    kv_tokens: int
    max_num_seqs: int
    notes: tuple[str, ...] = field(default=())
