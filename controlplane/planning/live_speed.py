"""What a deployment's live traffic took, on engines of one kind, as domain.refining takes it."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import QuerySet

from controlplane.domain.refining import Live
from controlplane.fleet.models import Deployment, Partition
from controlplane.gateway.models import RequestRecord
from controlplane.telemetry.models import EngineMinute
from workers.contract import Role

LOOK_BACK = timedelta(hours=24)
MOST_REQUESTS, MOST_MINUTES = 2000, 3000
LEAST_BUSY = 2.0  # sequences at once: below, the mean of a minute is mostly of an idle engine
COMPUTED_SHARE = 0.1  # of an engine's tokens: minutes with more prompts tell of mixed steps


def live(deployment: Deployment, gpu: str, tp: int, now: datetime) -> Live:
    """Of the last day. `gpu`, `tp`: what its engines lie on; another kind's traffic tells nothing of these."""
    own = _engines(deployment, gpu, tp)
    if not own:
        return Live()
    rows = RequestRecord.objects.filter(
        deployment=deployment.name, at__gte=now - LOOK_BACK, outcome="ok", prompt_tokens__gt=0, wake_ms__isnull=True
    )
    return Live(_prompts(rows, own), _decode(deployment, own, _context(rows), now))


def _engines(deployment: Deployment, gpu: str, tp: int) -> dict[int, str]:
    """Names by partition."""
    rows = Partition.objects.filter(deployment=deployment).select_related("node").prefetch_related("gpus")
    return {
        row.pk: str(row) for row in rows if len(row.gpus.all()) == tp and all(one.name == gpu for one in row.gpus.all())
    }


def _prompts(rows: QuerySet[RequestRecord], own: dict[int, str]) -> list[tuple[float, float]]:
    """What prefill engines answered in; of aggregated engines the time to the first token."""
    found = []
    columns = ("path", "prefill", "decode", "prompt_tokens", "cached_tokens", "prefill_ms", "ttft_ms")
    for path, prefill, decode, prompt, cached, prefill_ms, ttft_ms in (
        rows.order_by("-at").values_list(*columns)[:MOST_REQUESTS]
    ):  # fmt: skip
        engine, took = (prefill, prefill_ms) if path == "two_step" else (decode, ttft_ms)
        computed = prompt - (cached or 0)
        if took and computed > 0 and engine in own.values():
            found.append((float(computed), float(took)))
    return found


def _context(rows: QuerySet[RequestRecord]) -> float:
    """Tokens that a token of an answer is made with, on the mean."""
    told = rows.filter(completion_tokens__gt=0).order_by("-at").values_list("prompt_tokens", "completion_tokens")
    lengths = list(told[:MOST_REQUESTS])
    answers = sum(osl for _, osl in lengths)
    return sum(osl * (isl + osl / 2.0) for isl, osl in lengths) / answers if answers else 0.0


def _decode(
    deployment: Deployment, own: dict[int, str], context: float, now: datetime
) -> list[tuple[float, float, float]]:
    """Minutes in which an engine decoded several sequences and next to nothing else."""
    rows = EngineMinute.objects.filter(
        partition__in=own, deployment_id=deployment.pk, at__gte=now - LOOK_BACK, running__gte=LEAST_BUSY,
        itl_ms__gt=0, generation_tps__gt=0,
    ).exclude(partition__role=Role.PREFILL.value)  # fmt: skip
    told = rows.order_by("-at").values_list("running", "itl_ms", "generation_tps", "computed_tps")[:MOST_MINUTES]
    return [
        (running, context, itl)
        for running, itl, generated, computed in told
        if context and (computed or 0.0) <= COMPUTED_SHARE * generated
    ]
