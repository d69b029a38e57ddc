"""How many engines for prefill and for decode: closed forms say where to begin, a replay of the trace decides. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from controlplane.domain import queueing, replay
from controlplane.domain.profiles import Speed
from controlplane.domain.replay import Engines, Floats, Outcome, Trace
from workers.contract import Role

LEVEL = 0.99  # of the quantiles that closed forms plan for


@dataclass(frozen=True, slots=True)
class Slo:
    """Of `share` of all requests, 0..1: both within."""

    ttft_ms: float
    itl_ms: float
    share: float = 0.95


@dataclass(frozen=True, slots=True)
class Demand:
    """`context`: tokens that a token of an answer is made with, E[OSL (ISL + OSL / 2)] / E[OSL]. `ca2`: squared
    coefficient of variation of the times between arrivals, 1 where they are Poisson."""

    rate_per_s: float
    isl: float
    osl: float
    context: float
    isl_cv2: float
    longest_p95: float
    ca2: float = 1.0

    @classmethod
    def of(cls, trace: Trace, *, rate_per_s: float | None = None) -> Demand:
        """Of two requests at least. `rate_per_s`: instead of the trace's own mean."""
        isl, osl = trace.isl.astype(float), trace.osl.astype(float)
        gaps = np.diff(trace.at_ms) / 1000.0
        mean_gap = float(gaps.mean())
        return cls(
            rate_per_s=rate_per_s if rate_per_s is not None else 1.0 / mean_gap,
            isl=float(isl.mean()),
            osl=float(osl.mean()),
            context=float((osl * (isl + osl / 2.0)).sum() / osl.sum()),
            isl_cv2=float(isl.var() / isl.mean() ** 2),
            longest_p95=float(np.quantile(isl + osl, 0.95)),
            ca2=float(gaps.var() / mean_gap**2),
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """An engine that may be started, on GPUs of which `gpus` are there in all; a price of each in any currency."""

    speed: Speed
    gpus: int
    gpu_hour: float = 1.0

    @property
    def tp(self) -> int:
        return self.speed.profile.tp

    @property
    def gpu(self) -> str:
        return self.speed.profile.gpu

    @property
    def most(self) -> int:
        """Engines on all of its GPUs, were there nothing else."""
        return self.gpus // self.tp


@dataclass(frozen=True, slots=True)
class Group:
    """Engines of one role. `budget`: max_num_batched_tokens; `batch`: max_num_seqs."""

    offer: Offer
    count: int
    budget: int
    batch: int

    @property
    def engines(self) -> Engines:
        return Engines(self.offer.speed, self.count, self.budget, self.batch)

    @property
    def gpus(self) -> int:
        return self.count * self.offer.tp

    @property
    def price(self) -> float:
        return self.gpus * self.offer.gpu_hour


@dataclass(frozen=True, slots=True)
class Size:
    """`prefill` None: each engine does both phases, and `decode` are all of them."""

    prefill: Group | None
    decode: Group

    @property
    def groups(self) -> tuple[Group, ...]:
        return (self.prefill, self.decode) if self.prefill else (self.decode,)

    @property
    def gpus(self) -> int:
        return sum(group.gpus for group in self.groups)

    @property
    def price_per_hour(self) -> float:
        return sum(group.price for group in self.groups)

    @property
    def missing(self) -> dict[str, int]:
        """GPUs by name, beyond those that are there."""
        needed: Counter[str] = Counter()
        there: dict[str, int] = {}
        for group in self.groups:
            needed[group.offer.gpu] += group.gpus
            there[group.offer.gpu] = group.offer.gpus
        return {name: count - there[name] for name, count in needed.items() if count > there[name]}

    @property
    def told(self) -> str:
        """In words: "2 x TP4 prefill + 3 x TP4 decode on H100"."""
        names = ("prefill", "decode") if self.prefill else ("aggregated",)
        return " + ".join(
            f"{group.count} x TP{group.offer.tp} {name} on {group.offer.gpu}"
            for name, group in zip(names, self.groups, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """A size, and the share of requests that it serves within the SLO in a replay."""

    size: Size
    met: float
    ttft_ms: float  # at the SLO's share
    itl_ms: float


def judge(trace: Trace, size: Size, slo: Slo, *, transfer_ms_per_token: float = 0.0) -> Judged:
    """By a replay of the trace."""
    if size.prefill is None:
        return _judged(size, replay.aggregated(trace, size.decode.engines), slo)
    return after(trace, replay.prefill(trace, size.prefill.engines), size, slo, transfer_ms_per_token)


def closed_form(demand: Demand, prefill: Offer, decode: Offer, slo: Slo) -> Size | None:
    """Prefill as M/G/c, for whose wait Allen-Cunneen's formula stands; decode as D = ceil(q99(L) / B*), L Poisson with
    mean rate x OSL x ITL. None where no number of engines keeps the SLO."""
    batch = most_batch(decode.speed, demand, slo)
    law = prefill.speed.prefill.law
    service_s = law.prompt_ms(demand.isl, prefill.speed.knee.tokens) / 1000.0
    tail_s = law.prompt_ms(demand.isl * (1.0 + 2.0 * math.sqrt(demand.isl_cv2)), prefill.speed.knee.tokens) / 1000.0
    if batch == 0 or tail_s * 1000.0 > slo.ttft_ms:
        return None
    count = math.floor(demand.rate_per_s * service_s) + 1
    while (
        queueing.wait_at(slo.share, count, demand.rate_per_s, service_s, cs2=demand.isl_cv2) + tail_s
        > slo.ttft_ms / 1000.0
    ):
        count += 1
    return Size(
        Group(prefill, count, prefill.speed.knee.tokens, prefill.speed.max_num_seqs),
        Group(decode, decoders(demand, decode.speed, batch), decode.speed.knee.tokens, batch),
    )


def dynamo(demand: Demand, prefill: Offer, decode: Offer, slo: Slo) -> Size | None:
    """As NVIDIA Dynamo's planner counts (components/planner, `_compute_replica_requirements`, correction factors 1):
    ceil(rate x ISL / throughput of one prompt of that length) and ceil(rate x OSL / throughput at the greatest load
    that keeps ITL, with a context of ISL + OSL / 2). Neither queues nor spread are in it."""
    context = demand.isl + demand.osl / 2.0
    batch = min(decode.speed.decode.law.most(slo.itl_ms, context), int(decode.speed.kv_tokens / context))
    if batch == 0:
        return None
    one = prefill.speed.prefill.law.step_ms(demand.isl, demand.isl) / 1000.0
    tokens_per_s = 1000.0 * batch / decode.speed.decode.law.itl_ms(batch, context)
    return Size(
        Group(prefill, math.ceil(demand.rate_per_s * one), prefill.speed.knee.tokens, prefill.speed.max_num_seqs),
        Group(decode, math.ceil(demand.rate_per_s * demand.osl / tokens_per_s), decode.speed.knee.tokens, batch),
    )


def most_batch(speed: Speed, demand: Demand, slo: Slo) -> int:
    """B*: what the ITL SLO allows, the KV has room for, and the engine takes."""
    allowed = speed.decode.law.most(slo.itl_ms, demand.context)
    return min(allowed, int(speed.kv_tokens / demand.longest_p95), speed.max_num_seqs)


def served_per_s(speed: Speed, role: Role, demand: Demand, slo: Slo) -> float:
    """Requests a second that one engine of the role serves at most, without queues; 0 where it cannot keep its part of
    the SLO for a request on the mean."""
    prompt_s = demand.isl / speed.knee.plateau
    if role is not Role.DECODE and speed.prefill.law.prompt_ms(demand.isl, speed.knee.tokens) > slo.ttft_ms:
        return 0.0
    if role is Role.PREFILL:
        return 1.0 / prompt_s
    batch = most_batch(speed, demand, slo)
    if batch == 0:
        return 0.0
    answer_s = demand.osl * speed.decode.law.itl_ms(batch, demand.context) / 1000.0 / batch
    return 1.0 / (answer_s if role is Role.DECODE else prompt_s + answer_s)


def decoders(demand: Demand, speed: Speed, batch: int, level: float = LEVEL) -> int:
    """D = ceil(q(L) / B*)."""
    load = demand.rate_per_s * demand.osl * speed.decode.law.itl_ms(batch, demand.context) / 1000.0
    return max(1, math.ceil(queueing.busy_at(level, load) / batch))


def ratio(demand: Demand, prefill: Speed, decode: Speed, slo: Slo) -> float:
    """P : D, prefill engines that the demand takes for each that decodes, all of them equally loaded: rate x E[S], of
    prompts one at a time, over rate x OSL x ITL(B*) / B*."""
    batch = max(1, most_batch(decode, demand, slo))
    service_s = prefill.prefill.law.prompt_ms(demand.isl, prefill.knee.tokens) / 1000.0
    held_s = demand.osl * decode.decode.law.itl_ms(batch, demand.context) / 1000.0 / batch
    return service_s / held_s


def after(trace: Trace, done: Floats, size: Size, slo: Slo, transfer: float) -> Judged:
    outcome = replay.disaggregated(trace, done, size.decode.engines, transfer_ms_per_token=transfer)
    return _judged(size, outcome, slo)


def _judged(size: Size, outcome: Outcome, slo: Slo) -> Judged:
    ttft, itl = (float(np.quantile(times, slo.share)) for times in (outcome.ttft_ms, outcome.itl_ms))
    return Judged(size, outcome.met(slo.ttft_ms, slo.itl_ms), ttft, itl)
