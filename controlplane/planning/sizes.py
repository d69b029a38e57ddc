"""How many engines for prefill and for decode a deployment needs: by replaying what was asked of it through the engines
that the fleet's GPUs would hold."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from django.conf import settings
from django.utils import timezone

from controlplane.domain import size_search, sizing
from controlplane.domain.problems import Problem
from controlplane.domain.profiles import Source
from controlplane.domain.replay import Trace
from controlplane.domain.sizing import Demand, Group, Judged, Size, Slo
from controlplane.fleet.errors import Invalid, NotFound, Refused
from controlplane.fleet.models import Deployment, Partition
from controlplane.gateway.models import RequestRecord
from controlplane.planning import lengths
from controlplane.planning.offers import Offered, offers, sources
from controlplane.planning.past_lengths import replayed

LEAST_REQUESTS, MOST_REQUESTS = 20, 1500
ASKED_REQUESTS = 1000  # made up from a rate
LINK_BYTES_PER_S = 25e9  # 200 Gb/s, for KV that goes from prefill to decode
LENGTHS_LEVEL = 0.95  # of the forecast of the next hour's mean lengths
AGAIN_S = 5  # a search takes 2 to 20 s


class Busy(Exception):
    """Other sizes are being looked for on this machine; nobody waits for them."""


@dataclass(frozen=True, slots=True)
class Question:
    """SLOs: None, those of the deployment. `rate_per_s`, `isl`, `osl`: of requests that nobody sent yet, alike and at
    random times; None, what was asked in the last `hours`, as long as the next hour's are told to be on the mean at
    `lengths_level`."""

    deployment: int
    ttft_ms: float | None = None
    itl_ms: float | None = None
    share: float = 0.95
    headroom: float = 1.5
    hours: float = 24.0
    rate_per_s: float | None = None
    isl: int | None = None
    osl: int | None = None
    lengths_level: float = LENGTHS_LEVEL


def answer(question: Question, prices: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Times in ms. `prices`: of a GPU's hour, by node; without them every GPU costs the same. Raises FleetError, and
    Busy while another question is being answered."""
    deployment = Deployment.objects.select_related("model").filter(pk=question.deployment).first()
    if deployment is None:
        raise NotFound("deployment", question.deployment)
    slo, (trace, made_up) = _slo(question, deployment), _trace(question, deployment)
    ahead = None if made_up else lengths.coming(deployment.name, time.time())
    if ahead is not None:
        trace = lengths.lengthened(trace, ahead, question.lengths_level, lengths.longest(deployment))
    found, missing = offers(deployment, prices or {})
    if not found:
        raise _no_offer(deployment, missing)
    with _alone():
        began = time.perf_counter()
        said = _searched(deployment, trace.faster(question.headroom), slo, found)
        said["took_ms"] = round(1e3 * (time.perf_counter() - began), 1)
    notes = [*missing, *said.pop("notes")]
    return {
        "deployment": {"id": deployment.pk, "name": deployment.name},
        "model": deployment.model.name,
        "slo": {"ttft_ms": slo.ttft_ms, "itl_ms": slo.itl_ms, "share": slo.share},
        "demand": {**_demand(trace), "made_up": made_up, "headroom": question.headroom},
        "lengths": ahead and lengths.as_json(ahead, trace, question.lengths_level),
        "now": _now(deployment),
        "offers": [_offer(one) for one in found],
        **said,
        "notes": notes,
    }


@contextmanager
def _alone() -> Iterator[None]:
    """One search at a time over all web processes of a machine, for each keeps a core busy. Raises Busy."""
    with (settings.HOME / "sizing.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy from None
        yield


def _slo(question: Question, deployment: Deployment) -> Slo:
    ttft, itl = question.ttft_ms or deployment.slo_ttft_ms, question.itl_ms or deployment.slo_itl_ms
    if not ttft or not itl:
        message = f"{deployment.name} has no aim for {'the time to the first token' if not ttft else 'tokens'}."
        raise Invalid([Problem("no-slo", message, "Set slo_ttft_ms and slo_itl_ms of it, or give ttft_ms and itl_ms.")])
    return Slo(float(ttft), float(itl), question.share)


def _trace(question: Question, deployment: Deployment) -> tuple[Trace, bool]:
    """And whether it is made up from a rate."""
    given = (question.rate_per_s, question.isl, question.osl)
    if all(given):
        gaps = np.random.default_rng(1).exponential(1.0 / float(question.rate_per_s or 1.0), ASKED_REQUESTS)
        lengths = ([int(question.isl or 1)] * ASKED_REQUESTS, [int(question.osl or 1)] * ASKED_REQUESTS)
        return Trace.of(np.cumsum(gaps).tolist(), *lengths), True
    if any(given):
        raise Invalid([Problem("half-a-demand", "rate_per_s, isl and osl go together.", "Give all three, or none.")])
    return recorded(deployment, question.hours), False


def recorded(deployment: Deployment, hours: float) -> Trace:
    """What was asked of it lately, at most MOST_REQUESTS; where too few are on record, by the minute, as from an
    imported history. Raises Refused where that is too little to size by."""
    now = timezone.now()
    since = now - timedelta(hours=hours)
    rows = RequestRecord.objects.filter(
        deployment=deployment.name, at__gte=since, outcome="ok", prompt_tokens__gt=0, completion_tokens__gt=0
    ).order_by("-at")
    asked = list(rows.values_list("at", "prompt_tokens", "completion_tokens")[:MOST_REQUESTS])
    if len(asked) < LEAST_REQUESTS or asked[0][0] <= asked[-1][0]:
        trace = replayed(deployment.name, since.timestamp(), now.timestamp(), MOST_REQUESTS)
        if len(trace) >= LEAST_REQUESTS and trace.at_ms[-1] > trace.at_ms[0]:
            return trace
        message = f"{len(asked)} requests of the last {hours:g} hours are on record, too few to size by."
        raise Refused([Problem("too-few-requests", message, "Give rate_per_s, isl and osl, or look further back.")])
    return Trace.of([at.timestamp() for at, *_ in asked], [row[1] for row in asked], [row[2] for row in asked])


def transfer_ms_per_token(deployment: Deployment) -> float:
    """Of KV on its way from prefill to decode."""
    return 1e3 * float(deployment.model.facts.get("kv_bytes_per_token") or 0) / LINK_BYTES_PER_S


def _searched(deployment: Deployment, trace: Trace, slo: Slo, found: list[Offered]) -> dict[str, Any]:
    transfer = transfer_ms_per_token(deployment)
    engines = [one.offer for one in found]
    said = size_search.find(trace, engines, slo, transfer_ms_per_token=transfer)
    best = said.best
    demand = Demand.of(trace)
    aim = (demand, slo)
    forms = [sizing.closed_form(demand, one, other, slo) for one in engines for other in engines]
    closed = min((size for size in forms if size), key=lambda size: size.price_per_hour, default=None)
    judged = closed and sizing.judge(trace, closed, slo, transfer_ms_per_token=transfer)
    priced = all(one.price is not None for one in found)
    kind = None if best is None else "disaggregated" if best.size.prefill else "aggregated"
    return {
        "best": kind,
        "aggregated": _judged(said.aggregated, priced, aim),
        "disaggregated": _judged(said.disaggregated, priced, aim),
        "wanted": _judged(said.wanted, priced, aim),
        "missing": said.wanted.size.missing if said.wanted else {},
        "closed_form": _judged(judged, priced, aim),
        "replays": said.replays,
        "notes": _notes(found, said.best, said.wanted),
    }


def _notes(found: list[Offered], best: Judged | None, wanted: Judged | None) -> list[str]:
    notes = [f"{one.offer.gpu}, {one.offer.tp} of them: {note}" for one in found for note in one.notes]
    if Source.ROOFLINE.value in sources(found):
        notes.append(
            "some engines are known by a roofline alone, which knows neither of communication nor of mixed steps: "
            "measure before you choose between aggregated and disaggregated"
        )
    if best is None and wanted is None:
        notes.append("no number of these engines keeps the objective, with four times the GPUs either")
    return notes


def _judged(judged: Judged | None, priced: bool, aim: tuple[Demand, Slo]) -> dict[str, Any] | None:
    if judged is None:
        return None
    size = judged.size
    return {
        "told": size.told,
        "prefill": _group(size.prefill) if size.prefill else None,
        "decode": _group(size.decode),
        "gpus": size.gpus,
        "prefill_per_decode": _ratio(size, *aim),
        "price_per_hour": round(size.price_per_hour, 4) if priced else None,
        "met": round(judged.met, 4),
        "ttft_ms": round(judged.ttft_ms, 1),
        "itl_ms": round(judged.itl_ms, 2),
    }


def _ratio(size: Size, demand: Demand, slo: Slo) -> float | None:
    if size.prefill is None:
        return None
    return round(sizing.ratio(demand, size.prefill.offer.speed, size.decode.offer.speed, slo), 3)


def _group(group: Group) -> dict[str, Any]:
    return {
        "count": group.count,
        "gpu": group.offer.gpu,
        "tp": group.offer.tp,
        "max_num_batched_tokens": group.budget,
        "max_num_seqs": group.batch,
    }


def _offer(one: Offered) -> dict[str, Any]:
    return {
        "gpu": one.offer.gpu,
        "tp": one.offer.tp,
        "gpus": one.offer.gpus,
        "source": one.source,
        "profile": one.profile,
        "knee_tokens": one.offer.speed.knee.tokens,
        "kv_tokens": one.offer.speed.kv_tokens,
    }


def _demand(trace: Trace) -> dict[str, Any]:
    demand = Demand.of(trace)
    return {
        "requests": len(trace),
        "seconds": round(float(trace.at_ms[-1] - trace.at_ms[0]) / 1e3, 1),
        "rate_per_s": round(demand.rate_per_s, 4),
        "isl": round(demand.isl, 1),
        "osl": round(demand.osl, 1),
        "ca2": round(demand.ca2, 2),
    }


def _now(deployment: Deployment) -> dict[str, int]:
    """Partitions by role."""
    rows = Partition.objects.filter(deployment=deployment).values_list("role", flat=True)
    return {role: sum(one == role for one in rows) for role in ("prefill", "decode", "aggregated")}


def _no_offer(deployment: Deployment, missing: list[str]) -> Refused:
    why = "; ".join(missing) or "the fleet has no GPU"
    message = f"Nothing is known of how fast {deployment.model.name} would be here: {why}."
    fix = f"Measure it (forebay profile run {deployment.name}), or import a table (forebay profile import)."
    return Refused([Problem("no-profile", message, fix)])
