"""The home page with the live map, and the palette's list of things to go to."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from controlplane.audit import roles
from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Deployment, Node, Partition, RegisteredModel
from controlplane.web.access import needs

SUMMARY = (
    ("gpus", "GPUs assigned"), ("nodes", "Nodes"), ("models", "Active models"),
    ("ttft_ms", "TTFT p95"), ("itl_ms", "ITL p95"), ("out", "Tokens out"),
)  # fmt: skip
RECENT = 8


@require_GET
@needs("view")
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "fleet/home.html", {"summary": SUMMARY, "events": AuditEvent.objects.all()[:RECENT]})


@require_GET
@needs("view")
def recent(request: HttpRequest) -> HttpResponse:
    return render(request, "activity/_recent.html", {"events": AuditEvent.objects.all()[:RECENT]})


@require_GET
@needs("view")
def palette(request: HttpRequest) -> JsonResponse:
    """Everything the palette can go to or begin. Nothing happens without a page that says what will."""
    return JsonResponse({"items": [*_begin(request), *_places()]})


def _places() -> list[dict[str, str]]:
    items = [_item(node.name, "node", reverse("web:node", args=[node.pk])) for node in Node.objects.only("name")]
    items += [
        _item(d.name, "deployment", reverse("web:deployment", args=[d.pk])) for d in Deployment.objects.only("name")
    ]
    items += [_item(m.name, "model", reverse("web:model", args=[m.pk])) for m in RegisteredModel.objects.only("name")]
    partitions = Partition.objects.select_related("node").only("name", "node__name")
    return items + [_item(str(p), "partition", reverse("web:partition", args=[p.pk])) for p in partitions]


def _begin(request: HttpRequest) -> list[dict[str, Any]]:
    starts = [
        ("node.join", "Add a node", reverse("web:node-add")),
        ("model.register", "Register a model", reverse("web:register")),
        ("deployment.change", "Create a deployment", reverse("web:deployment-new")),
        ("key.manage", "Create an API key", reverse("web:keys")),
    ]
    items = [_item(label, "do", url) for action, label, url in starts if roles.allows(request.user, action)]
    if not roles.allows(request.user, "node.cordon"):
        return items
    for node in Node.objects.filter(revoked=False).only("name", "schedulable"):
        verb = "Cordon" if node.schedulable else "Uncordon"
        items.append(_item(f"{verb} {node.name}", "do", f"{reverse('web:node', args=[node.pk])}#intent"))
    return items


def _item(label: str, kind: str, url: str) -> dict[str, str]:
    return {"label": label, "kind": kind, "url": url}
