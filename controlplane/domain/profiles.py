"""What an engine was measured to do, and the laws fitted to it: how long a step of prefill and of decode takes. Pure.

The laws are those of Sarathi-Serve (arXiv 2403.02310) and Splitwise (arXiv 2311.18677), in milliseconds:

    prefill   T(n, L) = max(t0, a + b n + c n L)     n tokens in one step, of prompts of L tokens each
    decode    ITL(B, ctx) = o + u B + v B ctx        B sequences with a context of ctx tokens on the mean
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kept = NDArray[np.bool_]
Law = TypeVar("Law")
LEAST_SIZES = 6  # different steps, for a knee that is read off measurements
FRACTION = 0.95  # of the plateau, at which a step is said to fill the GPU
FAR_OFF = 0.5  # of a point's own time: one that a law misses by more is left out of it, and named


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

    def b_at(self, context: float) -> float:
        """Milliseconds a token in steps so large that nothing else counts, prompts of `context` tokens."""
        return self.b + self.c * context

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
    o: float
    u: float
    v: float

    def itl_ms(self, batch: float, context: float) -> float:
        return self.o + batch * (self.u + self.v * context)

    def most(self, itl_ms: float, context: float) -> int:
        """The greatest batch that keeps to `itl_ms`; 0 where not even one sequence does."""
        if self.itl_ms(1, context) > itl_ms:
            return 0
        slope = self.u + self.v * context
        return int((itl_ms - self.o) / slope + 1e-9) if slope > 0 else 10**6


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


def speed(profile: Profile, *, fraction: float = FRACTION, kv_tokens: int = 1 << 20, max_num_seqs: int = 256) -> Speed:
    """Laws and knee. `kv_tokens`, `max_num_seqs`: where the profile does not know them. Raises ProfileError."""
    prefill, decode = fit_prefill(profile.prefill), fit_decode(profile.decode)
    notes = [
        f"{len(fit.left_out)} of {len(fit.errors)} points of {name} lie more than half off every such law"
        for name, fit in (("prefill", prefill), ("decode", decode))
        if fit.left_out
    ]
    if profile.kv_tokens is None:
        notes.append(f"room for KV is taken to be {kv_tokens} tokens")
    return Speed(
        profile=profile,
        prefill=prefill,
        decode=decode,
        knee=knee([point for place, point in enumerate(profile.prefill) if place not in prefill.left_out], fraction),
        kv_tokens=profile.kv_tokens or kv_tokens,
        max_num_seqs=profile.max_num_seqs or max_num_seqs,
        notes=tuple(notes),
    )


def fit_prefill(points: Sequence[PrefillPoint]) -> Fit[PrefillLaw]:
    """By least squares of relative errors, all coefficients at least 0; the floor is where that is best. Raises
    ProfileError."""
    if len({point.tokens for point in points}) < 2:
        raise ProfileError("prefill needs steps of two sizes at least")
    tokens = np.array([point.tokens for point in points], float)
    context = np.array([point.context for point in points], float)
    took = _times(point.step_ms for point in points)

    def law_of(chosen: Kept) -> PrefillLaw:
        return _prefill_law(tokens[chosen], context[chosen], took[chosen])

    def said_by(law: PrefillLaw) -> Floats:
        return np.array([law.fitted_ms(n, length) for n, length in zip(tokens, context, strict=True)])

    kept = _kept(took, lambda chosen: said_by(law_of(chosen)), ~_too_fast(tokens, took))
    law = law_of(kept)
    said = said_by(law)
    sizes = sorted(set(tokens[kept]))
    bends = tuple(float(np.median((took / said)[kept & (tokens == size)])) for size in sizes)
    bent = PrefillLaw(law.floor_ms, law.a, law.b, law.c, tuple(float(size) for size in sizes), bends)
    return Fit(bent, tuple(float(error) for error in said / took - 1.0), _places(~kept))


def fit_decode(points: Sequence[DecodePoint]) -> Fit[DecodeLaw]:
    """By least squares of relative errors, all coefficients at least 0. Raises ProfileError."""
    if len({(point.concurrency, point.context) for point in points}) < 2:
        raise ProfileError("decode needs two loads at least")
    batch = np.array([point.concurrency for point in points], float)
    context = np.array([point.context for point in points], float)
    took = _times(point.itl_ms for point in points)
    columns = np.column_stack([np.ones_like(batch), batch, batch * context])
    kept = _kept(took, lambda chosen: columns @ _least(columns[chosen], took[chosen]), took > 0)
    o, u, v = (float(part) for part in _least(columns[kept], took[kept]))
    return Fit(DecodeLaw(o, u, v), tuple(columns @ np.array([o, u, v]) / took - 1.0), _places(~kept))


def knee(points: Sequence[PrefillPoint], fraction: float = FRACTION) -> Knee:
    """Off the measurements where there are LEAST_SIZES sizes and the rate levels off among them, off the law elsewhere.
    Points of one size count by their median. Raises ProfileError."""
    sizes = sorted({point.tokens for point in points})
    times = [float(np.median([point.step_ms for point in points if point.tokens == size])) for size in sizes]
    rates = [1000.0 * size / took for size, took in zip(sizes, times, strict=True)]
    top = max(rates, default=0.0)
    if len(sizes) < LEAST_SIZES or rates[-1] == top > rates[-2] * (2.0 - fraction):
        return _knee_of(fit_prefill(points).law, sum(point.context for point in points) / len(points), fraction)
    place = next(place for place, rate in enumerate(rates) if rate >= fraction * top)
    at = float(sizes[place])
    if place:
        at = float(np.interp(fraction * top, rates[place - 1 : place + 1], sizes[place - 1 : place + 1]))
    return Knee(math.ceil(at), top, fraction, measured=True)


def kv_capacity(
    *, memory_bytes: float, tp: int, weights_bytes: float, activation_bytes: float, kv_bytes_per_token: float,
    utilisation: float = 0.9,
) -> int:  # fmt: skip
    """Tokens of KV for which there is room: (utilisation x memory x TP - weights - activations) / KV bytes of a token,
    which are 2 x layers x kv_heads x head_dim x bytes of an element, of all GPUs together. At least 0."""
    room = utilisation * memory_bytes * tp - weights_bytes - activation_bytes
    return max(0, int(room / kv_bytes_per_token))


def _knee_of(law: PrefillLaw, context: float, fraction: float) -> Knee:
    """n / max(t0, a + b' n) = f / b', with b' = b + c L."""
    slope = law.b + law.c * context
    if slope <= 0:
        raise ProfileError("steps of prefill do not take longer with more tokens: they are too small to find a knee")
    tokens = max(fraction / (1.0 - fraction) * law.a / slope, fraction * law.floor_ms / slope, 1.0)
    return Knee(math.ceil(tokens), 1000.0 / slope, fraction, measured=False)


def _prefill_law(tokens: Floats, context: Floats, took: Floats) -> PrefillLaw:
    """Every number of smallest steps is tried as those at the floor, as long as two sizes are left for the line."""
    columns = np.column_stack([np.ones_like(tokens), tokens, tokens * context])
    best, least = None, math.inf
    for size in [0.0, *sorted(set(tokens))[:-2]]:
        above = tokens > size
        floor = 0.0 if above.all() else float(np.median(took[~above]))
        a, b, c = (float(part) for part in _least(columns[above], took[above]))
        said = np.maximum(floor, columns @ np.array([a, b, c]))
        wrong = float((((said - took) / took) ** 2).sum())
        if wrong < least * (1.0 - 1e-6):
            best, least = PrefillLaw(floor, a, b, c), wrong
    if best is None:
        raise ProfileError("no line goes through the steps of prefill")
    return best


def _least(columns: Floats, took: Floats) -> Floats:
    """Scaled by column, for tokens times context are a million times greater than one."""
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12)
    from scipy.optimize import nnls  # a second to import, and only who fits asks

    found, _ = nnls(columns / scale / took[:, None], np.ones_like(took))
    return np.asarray(found / scale)


def _too_fast(tokens: Floats, took: Floats) -> Kept:
    """Steps that took less than half as long as a smaller one: the engine refused or cut them."""
    return np.array([bool((took[tokens < n] > 2.0 * time).any()) for n, time in zip(tokens, took, strict=True)])


def _kept(took: Floats, said: Callable[[Kept], Floats], kept: Kept) -> Kept:
    """`kept`, less those that stay far off while the worst is left out one by one: a third of them at most."""
    for _ in range(int(kept.sum()) // 3):
        wrong = np.where(kept, np.abs(said(kept) / took - 1.0), 0.0)
        if wrong.max() <= FAR_OFF:
            break
        kept[int(wrong.argmax())] = False
    return kept


def _times(times: Iterable[float]) -> Floats:
    took = np.array(list(times), float)
    if not np.isfinite(took).all() or (took <= 0).any():
        raise ProfileError("times must be numbers above 0")
    return took


def _places(mask: Kept) -> tuple[int, ...]:
    return tuple(int(place) for place in np.flatnonzero(mask))
