"""Engines of a model that the fleet's GPUs would hold: by a profile where there is one, else by a roofline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from django.utils import timezone

from controlplane.domain import engine_args, memory, roofline
from controlplane.domain.fitting import speed
from controlplane.domain.model_facts import ModelFacts
from controlplane.domain.profiles import Profile, ProfileError, Source
from controlplane.domain.published import published
from controlplane.domain.refining import refine
from controlplane.domain.roofline import Rates, Weights
from controlplane.domain.sizing import Offer
from controlplane.fleet import qualified
from controlplane.fleet.models import Deployment, Gpu
from controlplane.planning.live_speed import live
from controlplane.planning.models import EngineProfile
from controlplane.planning.profiles import profile_of
from workers.contract import DeviceKind

TPS = (1, 2, 4, 8)  # that a roofline is made for
LEAST_KV = 4096  # tokens; an engine with less room is not offered
BITS = {"fp8": 8, "compressed-tensors": 8, "mxfp4": 4, "gptq": 4, "awq": 4, "bitsandbytes": 4}
CPU_SEQUENCES, SEQUENCES = 8, 256  # where the engine's arguments do not say


@dataclass(frozen=True, slots=True)
class Offered:
    """`profile`: by which; None: by the GPU's rates alone."""

    offer: Offer
    profile: int | None
    notes: tuple[str, ...]
    price: float | None = None  # of a GPU's hour

    @property
    def source(self) -> str:
        return self.offer.speed.profile.source.value


@dataclass(frozen=True, slots=True)
class _Kind:
    """All GPUs of one name. `nodes`: how many of them each has. `price`: of a GPU's hour, None: not known."""

    gpu: Gpu
    nodes: tuple[int, ...]
    price: float | None = None

    def on(self, tp: int) -> int:
        """GPUs that engines of `tp` could take: none spans two nodes."""
        return sum(count // tp * tp for count in self.nodes)


def offers(deployment: Deployment, prices: Mapping[str, float]) -> tuple[list[Offered], list[str]]:
    """And why some GPUs have none. `prices`: of a GPU's hour, by node."""
    found, missing = list[Offered](), list[str]()
    known = _newest(deployment.model.name)
    for kind in _kinds(prices):
        profiles = [(pk, profile) for pk, profile in known if profile.gpu == kind.gpu.name and kind.on(profile.tp)]
        if not profiles:
            profiles, why = _rooflines(deployment, kind)
            missing += [why] if why else []
        for pk, profile in profiles:
            try:
                found.append(_offered(deployment, kind, pk, profile))
            except ProfileError as error:
                missing.append(f"{kind.gpu.name}, {profile.tp} of them: {error}")
    return found, missing


def _newest(model: str) -> list[tuple[int, Profile]]:
    """One a GPU and size, what was measured here before what was imported."""
    rows = EngineProfile.objects.filter(model=model).order_by("-pk")
    best: dict[tuple[str, int], EngineProfile] = {}
    for row in rows:
        at = (row.gpu, row.tp)
        if at not in best or (row.source == Source.MEASURED and best[at].source != Source.MEASURED):
            best[at] = row
    return [(row.pk, profile_of(row)) for row in best.values()]


def _kinds(prices: Mapping[str, float]) -> list[_Kind]:
    """Prices are those of the nodes, each kind's by their median; without one of each, none is gone by."""
    present = Gpu.objects.filter(present=True, node__revoked=False).select_related("node")
    gpus = list(present.defer("node__spec").order_by("name", "pk"))
    kinds = []
    for name in sorted({gpu.name for gpu in gpus}):
        mine = [gpu for gpu in gpus if gpu.name == name]
        told = [prices[gpu.node.name] for gpu in mine if gpu.node.name in prices]
        nodes = tuple(Counter(gpu.node_id for gpu in mine).values())
        kinds.append(_Kind(mine[0], nodes, median(told) if told else None))
    known = all(kind.price for kind in kinds)
    return [replace(kind, price=kind.price if known else None) for kind in kinds]


def _offered(deployment: Deployment, kind: _Kind, pk: int | None, profile: Profile) -> Offered:
    cpu = kind.gpu.kind == DeviceKind.CPU
    sequences = engine_args.int_value(deployment.engine_args, "--max-num-seqs")
    room = _kv_tokens(deployment, kind, profile.tp)
    if room is not None and profile.kv_tokens is None and room < LEAST_KV:
        raise ProfileError(f"{deployment.model.name} leaves no room for KV on it")
    one = speed(
        profile, kv_tokens=room or 1 << 20, max_num_seqs=sequences or (CPU_SEQUENCES if cpu else SEQUENCES)
    )  # fmt: skip
    notes = one.notes if room is None else tuple(note for note in one.notes if not note.startswith("room for KV"))
    seen = refine(one, live(deployment, kind.gpu.name, profile.tp, timezone.now()))
    return Offered(Offer(seen.speed, kind.on(profile.tp), kind.price or 1.0), pk, (*notes, *seen.notes), kind.price)


def _kv_tokens(deployment: Deployment, kind: _Kind, tp: int) -> int | None:
    facts = _facts(deployment)
    cpu = kind.gpu.kind == DeviceKind.CPU
    shape = memory.engine_shape(deployment.engine_args, cpu=cpu)
    found = memory.fit(
        facts, tp=tp, gpu_memory_bytes=kind.gpu.memory_bytes, concurrency=1, context_tokens=1, cpu=cpu, shape=shape
    )
    return found.kv_tokens_capacity


def _rooflines(deployment: Deployment, kind: _Kind) -> tuple[list[tuple[int | None, Profile]], str]:
    rates, weights = _rates(kind.gpu), _weights(deployment)
    if weights is None:
        return [], f"{kind.gpu.name}: nothing was measured, and the size of {deployment.model.name} is not known"
    if rates is None:
        return [], f"{kind.gpu.name}: no profile of {deployment.model.name}, nor was such a GPU qualified"
    fitting = [tp for tp in TPS if kind.on(tp) and (_kv_tokens(deployment, kind, tp) or 0) >= LEAST_KV]
    if not fitting:
        return [], f"{kind.gpu.name}: {deployment.model.name} does not fit on it"
    return [(None, roofline.profile(weights, rates, tp)) for tp in fitting], ""


def _rates(gpu: Gpu) -> Rates | None:
    """Measured when it joined, else published."""
    found = qualified.measured_rates(gpu)
    if found and found.bf16_tflops and found.memory_gbs:
        return Rates(gpu.name, found.bf16_tflops, found.memory_gbs)
    told = published(gpu.name)
    return Rates(gpu.name, told.bf16_tflops, told.memory_gbs) if told else None


def _weights(deployment: Deployment) -> Weights | None:
    facts = _facts(deployment)
    if not facts.is_known or not facts.parameter_bytes or not facts.kv_bytes_per_token:
        return None
    parameters = facts.parameter_bytes * 8 / BITS.get(facts.quantization or "", 16)
    return Weights(
        deployment.model.name, _active(facts, parameters), float(facts.parameter_bytes),
        float(memory.kv_bytes_per_token(facts, 1)), facts.layers, facts.hidden_size,
    )  # fmt: skip


def _active(facts: ModelFacts, parameters: float) -> float:
    """Parameters that one token goes through: of experts, those that are chosen."""
    if not facts.experts or not facts.experts_per_token:
        return parameters
    experts = min(parameters, 3.0 * facts.layers * facts.experts * facts.hidden_size * facts.moe_intermediate_size)
    return parameters - experts * (1.0 - facts.experts_per_token / facts.experts)


def _facts(deployment: Deployment) -> ModelFacts:
    return ModelFacts.from_dict(deployment.model.facts)


def sources(found: Sequence[Offered]) -> set[str]:
    return {one.source for one in found}
