"""The palette's list of things to go to, and what a typed command means."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from controlplane.audit import roles
from controlplane.fleet.models import Deployment, Node, Partition, RegisteredModel
from controlplane.web import commands
from controlplane.web.access import needs
from controlplane.web.drafts import Draft
from workers.contract import Role

LONGEST = 300  # characters of a sentence


@require_GET
@needs("view")
def palette(request: HttpRequest) -> JsonResponse:
    """Everything the palette can go to or begin; with `q`, what that sentence means. Nothing happens without a page
    that says what will."""
    sentence = request.GET.get("q", "")[:LONGEST]
    if not sentence:
        return JsonResponse({"items": [*_begin(request), *_places()]})
    may = roles.allows(request.user, "partition.assign")
    return JsonResponse({"items": [_offer(offer) for offer in commands.offers(sentence, _names())] if may else []})


def _offer(offer: commands.Offer) -> dict[str, str]:
    """A command's page: the draft on the board, the number of GPUs with its preview, or the node's card of intents."""
    if isinstance(offer, commands.Planned):
        return _item(offer.label, "plan", f"{reverse('web:board')}?{Draft(offer.moves).query}")
    if isinstance(offer, commands.Intended):
        return _item(offer.label, "plan", f"{reverse('web:node', args=[offer.node])}#intent")
    way = {"deployment": offer.deployment, "source": offer.source, "target": offer.target, "gpus": offer.gpus}
    return _item(offer.label, "plan", f"{reverse('web:board-shift')}?{urlencode(way)}")


def _names() -> commands.Names:
    partitions = Partition.objects.select_related("node").only("name", "node__name", "deployment_id", "role")
    deployments = dict(Deployment.objects.values_list("name", "pk"))
    nodes = dict(Node.objects.filter(revoked=False).values_list("name", "pk"))
    rows = {str(row): row for row in partitions}
    return commands.Names(
        partitions={
            name.lower(): commands.Place(row.pk, row.deployment_id, Role(row.role) if row.role else None)
            for name, row in rows.items()
        },
        deployments={name.lower(): pk for name, pk in deployments.items()},
        nodes={name.lower(): pk for name, pk in nodes.items()},
        spelled={name.lower(): name for name in (*rows, *deployments, *nodes)},
    )


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
