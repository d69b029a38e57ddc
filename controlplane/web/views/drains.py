"""Draining a node: the plan, progress, and calling it off."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit.requests import actor_of
from controlplane.domain.impact import Load
from controlplane.fleet import change_facts, services
from controlplane.fleet.facts import drain_facts, has_process
from controlplane.fleet.models import Change, Node
from controlplane.planning import load
from controlplane.web import forms, undo
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, refused, sent, show

LOSSES = {"would-stop-serving", "last-replica"}


@require_http_methods(["GET", "POST"])
@needs("node.cordon")
def drain(request: HttpRequest, pk: int) -> HttpResponse:
    node = find(Node.objects, pk, "node")
    form = forms.Drain(sent(request), initial={"move": not node.draining})
    context = {"node": node, "form": form, **_plan(request, pk, form)}
    if request.method == "GET" or not form.is_valid() or not _agrees(form, context):
        return show(request, "nodes/drain.html", context, invalid=form.is_bound)
    try:
        return _apply(request, node, form.cleaned_data)
    except REFUSALS as error:
        return show(request, "nodes/drain.html", {**context, **_plan(request, pk, form)}, error)


@require_GET
@needs("node.cordon")
def plan(request: HttpRequest, pk: int) -> HttpResponse:
    """What the form would do, as it stands now."""
    node, form = find(Node.objects, pk, "node"), forms.Drain(request.GET)
    return show(request, "nodes/_drain_plan.html", {"node": node, "form": form, **_plan(request, pk, form)})


@require_GET
@needs("view")
def progress(request: HttpRequest, pk: int) -> HttpResponse:
    node = find(Node.objects.prefetch_related("partitions__deployment"), pk, "node")
    return show(request, "nodes/_drain_progress.html", {"node": node, **progress_of(node)})


@require_POST
@needs("node.cordon")
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Also while its engines are only being moved: that is rolled back then."""
    node, to = find(Node.objects, pk, "node"), reverse("web:node", args=[pk])
    reason, actor = request.POST.get("reason", "")[:500], actor_of(request, "web")
    try:
        if change := _moving(node):
            services.roll_back_change(change.pk, actor=actor, reason=reason)
            return done(request, f"Cancelled: what was moved away from {node.name} is taken back.", to)
        services.cancel_drain(pk, actor=actor, reason=reason)
    except REFUSALS as error:
        return refused(request, error, to)
    undo.offer(request, reverse("web:node-drain", args=[pk]), reason="undo: cancel the drain", confirm=node.name)
    return done(request, f"Cancelled the drain of {node.name}: its engines serve again.", to)


def progress_of(node: Node) -> dict[str, Any]:
    """How far the drain is, or the change that ends in it. `node` with partitions and deployments prefetched."""
    change = _moving(node)
    partitions = list(node.partitions.all())
    facts = drain_facts(node, partitions)
    if facts is not None:
        known = load.live().partitions
        loads = [known.get(row.pk, Load()).in_flight for row in partitions if has_process(row)]
        facts["in_flight"] = (
            sum(value for value in loads if value is not None) if any(value is not None for value in loads) else None
        )
        at = facts["deadline_at"]
        facts["ends"] = datetime.fromtimestamp(at, tz=UTC) if at else None
    return {"drain": facts, "moving": change_facts.brief(change) if change else None}


def _moving(node: Node) -> Change | None:
    return next((change for change in change_facts.open_changes() if change.node_id == node.pk), None)


def _plan(request: HttpRequest, pk: int, form: forms.Drain) -> dict[str, Any]:
    """For the preview; with what of it can't be taken back lightly."""
    values = form.cleaned_data if form.is_bound and form.is_valid() else {"move": form["move"].value() is True}
    asked = {"move": bool(values.get("move")), "deadline_s": values.get("deadline_s")}
    try:
        seen = services.preview_drain(pk, **asked, actor=actor_of(request, "web"), live=load.live())
    except REFUSALS:
        return {"plan": None, "loses": False}
    told = {problem["code"] for problem in [*seen["problems"], *seen["warnings"]]}
    return {"plan": seen, "loses": bool(told & LOSSES)}


def _agrees(form: forms.Drain, context: dict[str, Any]) -> bool:
    name = context["node"].name
    if not context["loses"] or context["node"].draining or form.cleaned_data["confirm"] == name:
        return True
    form.add_error("confirm", f"This takes the last engine of a role. Type {name} to go on all the same.")
    return False


def _apply(request: HttpRequest, node: Node, values: dict[str, Any]) -> HttpResponse:
    actor, deadline_s, reason = actor_of(request, "web"), values["deadline_s"], values["reason"]
    to = reverse("web:node", args=[node.pk])
    if values["move"]:
        agreed = {"version": values["version"], "force": values["force"], "reason": reason, "deadline_s": deadline_s}
        change = services.drain_with_moves(node.pk, **agreed, actor=actor, live=load.live())
        if change is not None:
            said = f"{node.name} is drained once its engines serve elsewhere."
            return done(request, said, reverse("web:change", args=[change.pk]))
    else:
        services.drain(node.pk, actor=actor, reason=reason, deadline_s=deadline_s)
    undo.offer(request, reverse("web:node-cancel-drain", args=[node.pk]), reason="undo: drain")
    return done(request, f"Draining {node.name}: its engines end once their requests have ended.", to)
