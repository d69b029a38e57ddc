"""AIConfigurator's cases beside what `saturation` makes of the same steps, imported, and of rooflines.

The steps are those of its own database (tables/aiconfigurator_0_12.csv.gz, written by the program beside it). *By its
rules*: one prompt a step in prefill, its factors on times, prompts whole in aggregated engines, and its limit of what
so many requests in flight can give. *By ours*: as many prompts a step as fill the GPU, and prompts whole or spread over
steps, whichever gives more.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass, replace
from pathlib import Path

from controlplane.domain import roofline, saturation
from controlplane.domain.fitting import kv_capacity, speed
from controlplane.domain.profiles import Profile, Speed
from controlplane.domain.roofline import Rates, Weights
from controlplane.domain.saturation import Load, Rate
from controlplane.planning.aiconfigurator import parse

TABLE = Path(__file__).parent / "tables" / "aiconfigurator_0_12.csv.gz"
PREFILL, DECODE = 1.1, 1.08  # its factors on times of disaggregated engines
LAYER_MS = 0.8  # of a layer, that it adds to a prompt's time
GRID = (*range(1, 16), *range(16, 32, 4), *range(32, 64, 8), *range(64, 256, 16), 256)  # batches that it tries
FIXED = "gpt-oss-120b, 8 x H100, 4 P + 4 D of TP4"


@dataclass(frozen=True, slots=True)
class Model:
    """`name`: as its table has it, by its beginning."""

    name: str
    weights: Weights


@dataclass(frozen=True, slots=True)
class Case:
    """`both`, `apart`: tokens a second and GPU as AIConfigurator 0.12 says, aggregated and disaggregated."""

    name: str
    model: Model
    system: str
    gpus: int
    tpot_ms: float
    both: float
    apart: float

    @property
    def load(self) -> Load:
        return Load(3000, 150, self.tpot_ms)


LLAMA = Model(
    "nvidia/Llama-3.1-70B-Instruct-FP8", Weights("Llama-3.1-70B FP8", 70.6e9, 70.6e9, 2 * 80 * 8 * 128, 80, 8192)
)
GPT_OSS = Model("openai/gpt-oss-120b", Weights("gpt-oss-120b", 5.1e9, 65e9, 2 * 36 * 8 * 64 * 2, 36, 2880))
GPUS = {"h100_sxm": (Rates("H100", 1979.0, 3350.0), 80e9), "h200_sxm": (Rates("H200", 1979.0, 4800.0), 141e9)}
CASES = (
    Case("Llama-3.1-70B FP8, 8 x H100, TPOT 50 ms", LLAMA, "h100_sxm", 8, 50.0, 170.43, 221.53),
    Case("Llama-3.1-70B FP8, 16 x H100, TPOT 20 ms", LLAMA, "h100_sxm", 16, 20.0, 95.84, 221.53),
    Case("Llama-3.1-70B FP8, 16 x H200, TPOT 50 ms", LLAMA, "h200_sxm", 16, 50.0, 208.98, 296.02),
    Case("gpt-oss-120b, 8 x H100, TPOT 20 ms", GPT_OSS, "h100_sxm", 8, 20.0, 830.97, 834.26),
)
FIXED_TOLD = 390.0  # of FIXED


def compare() -> dict[str, float]:
    """Prints a line a case; the figures for RESULT."""
    with gzip.open(TABLE, "rt", newline="") as file:
        profiles, _ = parse(TABLE.name, file)
    print("\ntokens/s/GPU beside AIConfigurator 0.12 (ISL 3000, OSL 150): aggregated, disaggregated, ratio")
    heads = ("AIConfigurator", "imported, by its rules", "imported, by ours", "roofline, by ours")
    print(f"  {'':42}" + "".join(f"{head:>26}" for head in heads))
    result = {}
    for place, case in enumerate(CASES):
        raw = [of(profile, case) for profile in profiles if _is_of(profile, case)]
        slow = [of(slowed(profile), case) for profile in profiles if _is_of(profile, case)]
        theirs = by_its_rules(raw, case), saturation.disaggregated(slow, case.load, case.gpus, prompts=1)
        ours, flat = by_ours(raw, case), by_ours(rooflines(case), case)
        cells = [cell(case.both, case.apart), *(cell(*(rate.per_gpu if rate else 0.0 for rate in pair)) for pair in (
            theirs, ours, flat))]  # fmt: skip
        print(f"  {case.name:42}" + "".join(f"{one:>26}" for one in cells))
        print(f"  {'':42}by its rules {told(theirs)}; by ours {told(ours)}")
        for name, pair in (("its", theirs), ("our", ours), ("roofline", flat)):
            result |= {f"case{place}_{name}_{kind}": round(rate.per_gpu, 1) for kind, rate in zip(
                ("both", "apart"), pair, strict=True) if rate}  # fmt: skip
    return {**result, **fixed(profiles)}


def fixed(profiles: list[Profile]) -> dict[str, float]:
    case = CASES[3]
    [profile] = [one for one in profiles if one.model == case.model.name and one.tp == 4]
    slow, raw = of(slowed(profile), case), of(profile, case)
    theirs = saturation.pair(slow, 1, slow, 1, load=case.load, gpus=8, prompts=1)
    ours = saturation.pair(raw, 1, raw, 1, load=case.load, gpus=8)
    if theirs is None or ours is None:
        return {}
    print(f"  {FIXED:42}{FIXED_TOLD:26.0f}{theirs.per_gpu:26.0f}{ours.per_gpu:26.0f}")
    return {"fixed_its": round(theirs.per_gpu, 1), "fixed_our": round(ours.per_gpu, 1)}


def of(profile: Profile, case: Case) -> Speed:
    """KV as there is room for after the weights."""
    weights = case.model.weights
    room = kv_capacity(
        memory_bytes=GPUS[case.system][1], tp=profile.tp, weights_bytes=weights.read_bytes, activation_bytes=2e9,
        kv_bytes_per_token=weights.kv_bytes_per_token,
    )  # fmt: skip
    return speed(profile, kv_tokens=max(1, room), max_num_seqs=512)


def slowed(profile: Profile) -> Profile:
    return replace(
        profile,
        prefill=tuple(replace(point, step_ms=PREFILL * point.step_ms) for point in profile.prefill),
        decode=tuple(replace(point, itl_ms=DECODE * point.itl_ms) for point in profile.decode),
    )


def by_its_rules(speeds: list[Speed], case: Case) -> Rate | None:
    """Aggregated: no batch gives more than so many requests in flight can, each of which is there for its TTFT, too,
    which is a prompt's step and LAYER_MS of each layer, 1 + log2(batch) / 8 times."""
    rates = [_limited(one, case, batch) for one in speeds for batch in GRID if one.profile.tp <= case.gpus]
    return max((rate for rate in rates if rate), key=lambda rate: rate.per_gpu, default=None)


def _limited(one: Speed, case: Case, batch: int) -> Rate | None:
    load, count = case.load, case.gpus // one.profile.tp
    if batch * (load.isl + load.osl) > one.kv_tokens:
        return None
    ranks = min(point.batch for point in one.profile.prefill)
    tpot = saturation.whole_ms(one, load, batch)
    if tpot > case.tpot_ms:
        return None
    prompt = saturation.mixed_ms(one, load, ranks * load.isl, max(0, batch - ranks))
    ttft = (prompt + LAYER_MS * case.model.weights.layers) * min(2.0, 1.0 + math.log2(max(1.0, batch / ranks)) / 8.0)
    gaps = load.osl - 1
    rate = min(1000.0 * batch / tpot * gaps / load.osl, batch * gaps * 1000.0 / (ttft + tpot * gaps))
    return Rate(rate * count / case.gpus, case.gpus, 0, 0, count, one.profile.tp, batch)


def by_ours(speeds: list[Speed], case: Case) -> tuple[Rate | None, Rate | None]:
    both = [saturation.aggregated(speeds, case.load, case.gpus, whole=whole) for whole in (False, True)]
    best = max((rate for rate in both if rate), key=lambda rate: rate.per_gpu, default=None)
    return best, saturation.disaggregated(speeds, case.load, case.gpus)


def rooflines(case: Case) -> list[Speed]:
    rates = GPUS[case.system][0]
    return [of(roofline.profile(case.model.weights, rates, tp), case) for tp in (1, 2, 4, 8)]


def cell(both: float, apart: float) -> str:
    return f"{both:7.0f}{apart:7.0f}{apart / both if both else math.nan:6.2f}"


def told(pair: tuple[Rate | None, Rate | None]) -> str:
    return ", ".join(f"{rate.told}, batch {rate.batch}" if rate else "none" for rate in pair)


def _is_of(profile: Profile, case: Case) -> bool:
    return profile.model.startswith(case.model.name) and profile.gpu == case.system
