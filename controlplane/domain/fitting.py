"""From an engine's points to its laws (`profiles`) and to the step that fills the GPU. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from controlplane.domain.profiles import (
    DecodeLaw,
    DecodePoint,
    Fit,
    Knee,
    PrefillLaw,
    PrefillPoint,
    Profile,
    ProfileError,
    Speed,
)

Floats = NDArray[np.float64]
Kept = NDArray[np.bool_]
LEAST_SIZES = 6  # different steps, for a knee that is read off measurements
FRACTION = 0.95  # of the plateau, at which a step is said to fill the GPU
FAR_OFF = 0.5  # of a point's own time: one that a law misses by more is left out of it, and named


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
    bent = PrefillLaw(law.floor_ms, law.a, law.b, law.c, *_bends(tokens, took / said, kept))
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
    said = columns @ np.array([o, u, v])
    sizes, bends = _bends(batch, took / said, kept)
    return Fit(DecodeLaw(o, u, v, sizes, bends), tuple(said / took - 1.0), _places(~kept))


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


def _bends(sizes: Floats, ratio: Floats, kept: Kept) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measured over the line by size, by their median where a size was measured more than once."""
    found = sorted({float(size) for size in sizes[kept]})
    return tuple(found), tuple(float(np.median(ratio[kept & (sizes == size)])) for size in found)


def _places(mask: Kept) -> tuple[int, ...]:
    return tuple(int(place) for place in np.flatnonzero(mask))
