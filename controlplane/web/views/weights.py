"""Where weights lie, and having them fetched."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from controlplane.audit.requests import actor_of
from controlplane.fleet import services, whereabouts
from controlplane.fleet.models import Node, RegisteredModel
from controlplane.web import undo
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, back, done, find, refused, show

HUGGING_FACE = RegisteredModel.Kind.HUGGING_FACE


@require_GET
@needs("view")
def of_node(request: HttpRequest, pk: int) -> HttpResponse:
    """As it is now: asked for again while something is fetched."""
    return show(request, "nodes/_weights_rows.html", node_context(find(Node.objects, pk, "node")))


@require_GET
@needs("view")
def of_model(request: HttpRequest, pk: int) -> HttpResponse:
    return show(request, "models/_weights_rows.html", model_context(find(RegisteredModel.objects, pk, "model")))


@require_POST
@needs("node.change")
def want_on(request: HttpRequest, pk: int) -> HttpResponse:
    """On the node that is chosen."""
    node, model = find(Node.objects, _sent(request, "node"), "node"), find(RegisteredModel.objects, pk, "model")
    return _want(request, node, model, f"{reverse('web:model', args=[pk])}#weights")


@require_POST
@needs("node.change")
def want(request: HttpRequest, pk: int) -> HttpResponse:
    node, model = find(Node.objects, pk, "node"), find(RegisteredModel.objects, _sent(request, "model"), "model")
    return _want(request, node, model, f"{reverse('web:node', args=[pk])}#weights")


def _sent(request: HttpRequest, name: str) -> int:
    text = request.POST.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def _want(request: HttpRequest, node: Node, model: RegisteredModel, to: str) -> HttpResponse:
    to, is_wanted = back(request, to), request.POST.get("wanted") != "no"
    verb = services.fetch_weights if is_wanted else services.unfetch_weights
    reason = request.POST.get("reason", "").strip()[:1000]
    try:
        verb(node.pk, model_id=model.pk, actor=actor_of(request, "web"), reason=reason)
    except REFUSALS as error:
        return refused(request, error, to)
    here = reverse("web:node-weights-want", args=[node.pk])
    undo.offer(request, here, model=model.pk, wanted="no" if is_wanted else "yes", reason="undo: fetch", next=to)
    words = "{} is fetched to {}." if is_wanted else "{} is not wanted on {} any more; what is there stays for now."
    return done(request, words.format(model.name, node.name), to)


def node_context(node: Node) -> dict[str, Any]:
    rows = whereabouts.of_node(node)
    wanted = [one.model.pk for one in rows if one.wanted]
    models = RegisteredModel.objects.filter(kind=HUGGING_FACE).exclude(pk__in=wanted)
    return {"node": node, "weights": rows, "awaited": whereabouts.is_any_awaited(rows), "fetchable": models}


def model_context(model: RegisteredModel) -> dict[str, Any]:
    rows = whereabouts.of_model(model)
    wanted = [one.node.pk for one in rows if one.wanted]
    nodes = Node.objects.filter(revoked=False).exclude(pk__in=wanted).defer("spec")
    places = nodes if model.kind == HUGGING_FACE else nodes.none()
    return {"model": model, "weights": rows, "awaited": whereabouts.is_any_awaited(rows), "places": places}
