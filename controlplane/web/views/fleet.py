"""The home page with the live map."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from controlplane.audit.models import AuditEvent
from controlplane.costs.hourly import hourly
from controlplane.fleet.models import PoolAim
from controlplane.planning.coming import coming
from controlplane.web import charts
from controlplane.web.access import needs

SUMMARY = (
    ("gpus", "GPUs assigned"), ("nodes", "Nodes"), ("models", "Active models"),
    ("ttft_ms", "TTFT p95"), ("itl_ms", "ITL p95"), ("out", "Tokens out"),
)  # fmt: skip
RECENT = 8


@require_GET
@needs("view")
def home(request: HttpRequest) -> HttpResponse:
    context = {"summary": SUMMARY, "events": AuditEvent.objects.all()[:RECENT], "charts": charts.of_fleet()}
    context |= _ahead()
    return render(request, "fleet/home.html", context)


@require_GET
@needs("view")
def recent(request: HttpRequest) -> HttpResponse:
    return render(request, "activity/_recent.html", {"events": AuditEvent.objects.all()[:RECENT]})


@require_GET
@needs("view")
def ahead(request: HttpRequest) -> HttpResponse:
    """What of the summary changes by the minute, so that no live frame has to carry it."""
    return render(request, "fleet/_minute.html", _ahead() | {"oob": True})


def _ahead() -> dict[str, Any]:
    now, aim = timezone.now(), PoolAim.objects.first()
    return {
        "coming": coming(now),
        "held": aim and aim.slots,
        "held_why": aim and aim.reason,
        "hourly": hourly(now),
        "currency": settings.CURRENCY,
    }
