"""The pool: its slots live, the models that wait, the last ones that were woken."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import Count, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from controlplane.audit.requests import actor_of
from controlplane.fleet import pool_keep, pool_view, services
from controlplane.fleet.models import Activation, Deployment, Partition, PoolAim, PoolUse
from controlplane.fleet.pool_view import Place
from controlplane.gateway.models import DemandMinute
from controlplane.teams import floors
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, back, done, find, refused, show

PER_PAGE = 25
MOST_POOLED = 100
NOTHING_NEW = 204
DAY = timedelta(hours=24)


@require_GET
@needs("view")
def pool(request: HttpRequest) -> HttpResponse:
    rows = Activation.objects.select_related("deployment").order_by("-id")
    free = Partition.objects.filter(pool=False).select_related("node", "deployment").order_by("node__name", "name")
    pooled = _pooled()
    context = {
        **_now(),
        "page": Paginator(rows, PER_PAGE).get_page(request.GET.get("page")),
        "free": free,
        "pooled": pooled[:MOST_POOLED],
        "more_pooled": len(pooled) if len(pooled) > MOST_POOLED else 0,
    }
    return show(request, "pool/pool.html", context)


@require_GET
@needs("view")
def now(request: HttpRequest) -> HttpResponse:
    """The part that changes; nothing where what is shown is still so."""
    context = _now()
    if request.GET.get("key") == context["key"]:
        return HttpResponse(status=NOTHING_NEW)
    return show(request, "pool/_now.html", context)


@require_POST
@needs("partition.change")
def add(request: HttpRequest) -> HttpResponse:
    """Set one aside, by the form of the page."""
    given = request.POST.get("partition", "")
    return _set(request, int(given) if given.isdecimal() else 0, True)


@require_POST
@needs("partition.change")
def put(request: HttpRequest, pk: int) -> HttpResponse:
    """Set the partition aside (`pool` 1) or take it back (0), by a button."""
    return _set(request, pk, request.POST.get("pool") == "1")


def _set(request: HttpRequest, pk: int, pool: bool) -> HttpResponse:
    row, to = find(Partition.objects.select_related("node"), pk, "partition"), back(request, "web:pool")
    reason = request.POST.get("reason", "").strip()[:500]
    try:
        services.set_pool(row.pk, pool=pool, actor=actor_of(request, "web"), reason=reason)
    except REFUSALS as error:
        return refused(request, error, to)
    return done(request, f"{row} is {'a slot' if pool else 'no slot any more'} of the pool.", to)


def _now() -> dict[str, Any]:
    found, at = pool_view.look(timezone.now()), timezone.now()
    owed = floors.look(at)
    counts = {place.value: found.count(place) for place in Place}
    shown = [
        (slot.partition.pk, slot.place, slot.partition.deployment_id, slot.resident and slot.resident.in_flight,
         slot.resident and slot.resident.idle_s and int(slot.resident.idle_s))
        for slot in found.slots
    ]  # fmt: skip
    waiting = [(one.pk, one.state, one.waiters, int((at - one.asked_at).total_seconds())) for one in found.waiting]
    return {
        "pool": found,
        "counts": counts,
        "unusable": found.count(Place.UNUSABLE),
        "active_models": found.models(Place.ACTIVE),
        "idle_models": found.models(Place.IDLE),
        "aim": PoolAim.objects.first(),
        "free_wanted": settings.POOL_FREE,
        "tally": pool_view.tally(at),
        "floors": owed,
        "key": hashlib.blake2b(repr((shown, waiting, owed)).encode(), digest_size=8).hexdigest(),
    }


def _pooled() -> list[Deployment]:
    """Those that were asked for last first: as gateways tell, who keep it for 30 days, else as the record has it."""
    mine = {"deployment": OuterRef("name")}
    last = PoolUse.objects.filter(**mine).values("deployment").annotate(at=Max("last_at")).values("at")
    before = DemandMinute.objects.filter(**mine, arrivals__gt=0).order_by("-minute").values("minute")[:1]
    since = timezone.now() - DAY
    woken = Count("activations", filter=Q(activations__state="ready", activations__ended_at__gt=since))
    rows = Deployment.objects.filter(mode=Deployment.Mode.POOLED).annotate(
        last_at=Coalesce(Subquery(last), Subquery(before)), woken=woken
    )
    found = list(rows.order_by(F("last_at").desc(nulls_last=True), "name"))
    keeps = pool_keep.read(timezone.now())
    for row in found:
        row.keeps = keeps.of(row)
    return found
