"""Measuring GPUs, and accepting one that did not pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from controlplane.audit.requests import actor_of
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Gpu, Node
from controlplane.web import qualifications, undo
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, refused, show


@require_GET
@needs("view")
def section(request: HttpRequest, pk: int) -> HttpResponse:
    """As it is now: asked for when the live view says that something changed, and while something is measured."""
    return show(request, "nodes/_qualification.html", context(find(Node.objects, pk, "node")))


@require_POST
@needs("node.change")
def qualify_node(request: HttpRequest, pk: int) -> HttpResponse:
    to = _place(pk)
    try:
        made = services.qualify_node(pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return refused(request, error, to)
    return done(request, f"{len(made)} {'GPU is' if len(made) == 1 else 'GPUs are'} to be measured.", to)


@require_POST
@needs("node.change")
def qualify(request: HttpRequest, pk: int) -> HttpResponse:
    return _decide(request, pk, services.qualify_gpu, "{} is measured as soon as nothing is on it.")


@require_POST
@needs("node.change")
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    return _decide(request, pk, services.withdraw_qualification, "{} is not measured now.")


@require_POST
@needs("node.change")
def accept(request: HttpRequest, pk: int) -> HttpResponse:
    return _decide(request, pk, services.accept_gpu, "{} may be used as it is.", inverse="web:gpu-unaccept")


@require_POST
@needs("node.change")
def unaccept(request: HttpRequest, pk: int) -> HttpResponse:
    return _decide(request, pk, services.unaccept_gpu, "What was found of {} counts again.")


def context(node: Node) -> dict[str, Any]:
    gpus = list(node.gpus.select_related("node", "partition__deployment").order_by("index"))
    rows = qualifications.rows(gpus)
    return {"qualified": rows, "node": node, "measuring": any(row.is_open for row in rows),
            "can_measure_any": any(row.can_measure for row in rows)}  # fmt: skip


def _decide(
    request: HttpRequest, pk: int, service: Callable[..., Any], words: str, *, inverse: str = ""
) -> HttpResponse:
    gpu = find(Gpu.objects.select_related("node"), pk, "GPU")
    to, actor = _place(gpu.node_id), actor_of(request, "web")
    try:
        _call(service, pk, actor, request.POST.get("reason", "").strip()[:1000])
    except REFUSALS as error:
        return refused(request, error, to)
    if inverse:
        undo.offer(request, reverse(inverse, args=[pk]), reason="undo: accept", next=to)
    return done(request, words.format(gpu), to)


def _call(service: Callable[..., Any], pk: int, actor: Actor, reason: str) -> None:
    service(pk, actor=actor, reason=reason)


def _place(node_id: int) -> str:
    return f"{reverse('web:node', args=[node_id])}#qualification"
