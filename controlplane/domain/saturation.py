"""What engines give when there is always more to do: aggregated beside disaggregated, in tokens a second and GPU. Pure.

For requests all alike, as planners' tables have them; sizing.py replays real ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.profiles import Speed

PREFILL_MATCHED, DECODE_MATCHED = 0.90, 0.92  # of the isolated rates, once both phases wait for each other (NVIDIA
# AIConfigurator's degradation factors)


@dataclass(frozen=True, slots=True)
class Load:
    isl: int
    osl: int
    tpot_ms: float

    @property
    def context(self) -> float:
        return self.isl + self.osl / 2.0


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_gpu`: tokens of answers a second and GPU. `prefill` 0: aggregated engines alone."""

    per_gpu: float
    gpus: int
    prefill: int
    prefill_tp: int
    decode: int
    decode_tp: int
    batch: int  # of each engine that decodes

    @property
    def told(self) -> str:
        if not self.prefill:
            return f"{self.decode} x TP{self.decode_tp}"
        return f"{self.prefill} x TP{self.prefill_tp} P + {self.decode} x TP{self.decode_tp} D"


def aggregated(speeds: Sequence[Speed], load: Load, gpus: int, *, whole: bool = False) -> Rate | None:
    """The best of these engines, each alone on its share of `gpus`. `whole`: each prompt in one step, while those who
    decode beside it wait; otherwise spread over steps (chunked prefill). None where none keeps TPOT."""
    rates = [_alone(speed, load, gpus, whole) for speed in speeds if speed.profile.tp <= gpus]
    return max((rate for rate in rates if rate), key=lambda rate: rate.per_gpu, default=None)


def disaggregated(speeds: Sequence[Speed], load: Load, gpus: int, *, prompts: int | None = None) -> Rate | None:
    """The best numbers of engines of both phases; GPUs left over count as used. `prompts`: of a step of prefill; None:
    as many as fill the GPU. None where none keeps TPOT."""
    found = [
        pair(
            prefill, count, decode, (gpus - count * prefill.profile.tp) // decode.profile.tp,
            load=load, gpus=gpus, prompts=prompts,
        )
        for prefill in speeds
        for decode in speeds
        for count in range(1, gpus // prefill.profile.tp + 1)
    ]  # fmt: skip
    return max((rate for rate in found if rate), key=lambda rate: rate.per_gpu, default=None)


def pair(
    prefill: Speed, prefills: int, decode: Speed, decodes: int, *, load: Load, gpus: int, prompts: int | None = None
) -> Rate | None:
    """Of so many engines. None where they are none or do not keep TPOT."""
    batch = min(decode.decode.law.most(load.tpot_ms, load.context), decode.max_num_seqs, _room(decode, load))
    if prefills < 1 or decodes < 1 or batch < 1:
        return None
    per_decode = 1000.0 * batch / decode.decode.law.itl_ms(batch, load.context) / load.osl
    requests = min(
        prefills * prompts_per_s(prefill, load, prompts) * PREFILL_MATCHED, decodes * per_decode * DECODE_MATCHED
    )
    return Rate(
        requests * load.osl / gpus, gpus, prefills, prefill.profile.tp, decodes, decode.profile.tp, batch
    )  # fmt: skip


def prompts_per_s(speed: Speed, load: Load, prompts: int | None) -> float:
    """Of one engine of prefill, `prompts` a step, as many at least as it has data-parallel ranks; None: the fewest that
    fill the GPU."""
    step = max(_ranks(speed), prompts or math.ceil(speed.knee.tokens / load.isl))
    return 1000.0 * step / speed.prefill.law.step_ms(step * load.isl, load.isl)


def _alone(speed: Speed, load: Load, gpus: int, whole: bool) -> Rate | None:
    best: Rate | None = None
    count = gpus // speed.profile.tp
    for batch in range(1, min(speed.max_num_seqs, _room(speed, load)) + 1):
        step_ms = (whole_ms if whole else _spread_ms)(speed, load, batch)
        if step_ms > load.tpot_ms:
            break
        per_gpu = 1000.0 * batch / step_ms * count / gpus
        best = Rate(per_gpu, gpus, 0, 0, count, speed.profile.tp, batch)
    return best


def _spread_ms(speed: Speed, load: Load, batch: int) -> float:
    """From token to token. In the long run a step of B sequences has B x ISL / OSL tokens of prompts beside them."""
    return mixed_ms(speed, load, batch * load.isl / load.osl, batch)


def whole_ms(speed: Speed, load: Load, batch: int) -> float:
    """The same on the mean: while B sequences get OSL tokens each, B prompts take a step each, in which the others get
    a token, too; one prompt a rank goes together."""
    together = min(_ranks(speed), batch)
    steps = min(batch / together, float(load.osl))
    mixed = mixed_ms(speed, load, together * load.isl, batch - together)
    return (steps * mixed + (load.osl - steps) * speed.decode.law.itl_ms(batch, load.context)) / load.osl


def mixed_ms(speed: Speed, load: Load, tokens: float, batch: int) -> float:
    """Weights are read once, for prompts and sequences together (as `replay` has it)."""
    law, bend = speed.decode.law, speed.decode.law.bend(batch)
    together = speed.prefill.law.step_ms(tokens + batch, load.isl * tokens / (tokens + batch))
    return max(together, bend * (law.o + batch * law.u)) + bend * law.v * batch * load.context


def _ranks(speed: Speed) -> int:
    """Prompts of the smallest step that is known: one, but for engines of data-parallel ranks."""
    return min((point.batch for point in speed.profile.prefill), default=1)


def _room(speed: Speed, load: Load) -> int:
    return int(speed.kv_tokens / (load.isl + load.osl))
