"""The home page with the live map."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from controlplane.audit.models import AuditEvent
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
    return render(request, "fleet/home.html", context)


@require_GET
@needs("view")
def recent(request: HttpRequest) -> HttpResponse:
    return render(request, "activity/_recent.html", {"events": AuditEvent.objects.all()[:RECENT]})
