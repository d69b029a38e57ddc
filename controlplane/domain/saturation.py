"""What engines give when there is always more to do: aggregated beside disaggregated, in tokens a second and GPU. Pure.

For requests all alike, as planners' tables have them; sizing.py replays real ones.
"""

from __future__ import annotations

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


def aggregated(speeds: Sequence[Speed], load: Load, gpus: int) -> Rate | None:
    """The best of these engines, each alone on its share of `gpus`. None where none keeps TPOT."""
    rates = [_alone(speed, load, gpus) for speed in speeds if speed.profile.tp <= gpus]
    return max((rate for rate in rates if rate), key=lambda rate: rate.per_gpu, default=None)


def disaggregated(speeds: Sequence[Speed], load: Load, gpus: int) -> Rate | None:
    """The best numbers of engines of both phases; GPUs left over count as used. None where none keeps TPOT."""
    found = [
        pair(prefill, count, decode, (gpus - count * prefill.profile.tp) // decode.profile.tp, load=load, gpus=gpus)
        for prefill in speeds
        for decode in speeds
        for count in range(1, gpus // prefill.profile.tp + 1)
    ]
    return max((rate for rate in found if rate), key=lambda rate: rate.per_gpu, default=None)


def pair(prefill: Speed, prefills: int, decode: Speed, decodes: int, *, load: Load, gpus: int) -> Rate | None:
    """Of so many engines. None where they are none or do not keep TPOT."""
    batch = min(decode.decode.law.most(load.tpot_ms, load.context), decode.max_num_seqs, _room(decode, load))
    if prefills < 1 or decodes < 1 or batch < 1:
        return None
    per_prefill = 1000.0 / (load.isl * prefill.prefill.law.b_at(load.isl))
    per_decode = 1000.0 * batch / decode.decode.law.itl_ms(batch, load.context) / load.osl
    requests = min(prefills * per_prefill * PREFILL_MATCHED, decodes * per_decode * DECODE_MATCHED)
    return Rate(
        requests * load.osl / gpus, gpus, prefills, prefill.profile.tp, decodes, decode.profile.tp, batch
    )  # fmt: skip


def _alone(speed: Speed, load: Load, gpus: int) -> Rate | None:
    """In the long run a step of B sequences has B x ISL / OSL tokens of prompts beside them."""
    best: Rate | None = None
    count = gpus // speed.profile.tp
    for batch in range(1, min(speed.max_num_seqs, _room(speed, load)) + 1):
        tokens = batch * load.isl / load.osl
        prefill_ms = speed.prefill.law.fitted_ms(tokens, load.isl)
        step_ms = (
            max(prefill_ms, speed.decode.law.o) + speed.decode.law.itl_ms(batch, load.context) - speed.decode.law.o
        )
        if step_ms > load.tpot_ms:
            break
        per_gpu = 1000.0 * batch / step_ms * count / gpus
        best = Rate(per_gpu, gpus, 0, 0, count, speed.profile.tp, batch)
    return best


def _room(speed: Speed, load: Load) -> int:
    return int(speed.kv_tokens / (load.isl + load.osl))
