"""Nodes: list, join, detail, and what people decide about whole nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit import roles
from controlplane.audit.models import AuditEvent
from controlplane.audit.requests import actor_of
from controlplane.domain.partitions import presets_for
from controlplane.domain.plans import PLANS
from controlplane.fleet import services
from controlplane.fleet.models import Deployment, JoinToken, Node
from controlplane.web import charts, forms, node_forms, rows, undo
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, back, done, find, refused, sent, show
from controlplane.web.views import qualification, weights
from controlplane.web.views.drains import progress_of

_INTENTS = {
    "cordon": ("Cordoned {}: nothing new is placed there.", "uncordon"),
    "uncordon": ("Uncordoned {}.", "cordon"),
}


@require_GET
@needs("view")
def nodes(request: HttpRequest) -> HttpResponse:
    tokens = JoinToken.objects.filter(used_at=None, expires_at__gt=timezone.now()).select_related("created_by")
    return show(request, "nodes/list.html", {"nodes": rows.nodes(Node.objects.all()), "tokens": tokens})


@require_http_methods(["GET", "POST"])
@needs("node.join")
def add(request: HttpRequest) -> HttpResponse:
    """The token is in this answer alone; a reload asks for a new one."""
    form = node_forms.Join(sent(request), initial={"node_name": request.GET.get("node", "")})
    if request.method == "GET" or not form.is_valid():
        return show(request, "nodes/add.html", {"form": form}, invalid=form.is_bound)
    try:
        token, plain = services.issue_join_token(**form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "nodes/add.html", {"form": form}, error)
    command = services.join_command(plain, node_name=token.node_name)
    answer = show(request, "nodes/token.html", {"token": token, "command": command})
    answer["Cache-Control"] = "no-store"
    return answer


@require_POST
@needs("node.join")
def cancel_token(request: HttpRequest, pk: int) -> HttpResponse:
    try:
        token = services.cancel_join_token(pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return refused(request, error, "web:nodes")
    return done(request, f"Cancelled {token}.", "web:nodes")


@require_GET
@needs("view")
def node(request: HttpRequest, pk: int) -> HttpResponse:
    row = _row(pk)
    events = AuditEvent.objects.filter(_about(row.node))[:8]
    context = {"row": row, "events": events, "log": _log(request, row), "charts": charts.NODE, **progress_of(row.node)}
    context |= qualification.context(row.node) | weights.node_context(row.node)
    return show(request, "nodes/detail.html", context)


@require_GET
@needs("view")
def parts(request: HttpRequest, pk: int) -> HttpResponse:
    """The partitions as they are now: asked for when the live view says that something changed."""
    return show(request, "nodes/_partitions.html", {"row": _row(pk)})


@require_POST
@needs("node.cordon")
def intend(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    words, inverse = _INTENTS[verb]
    to = back(request, reverse("web:node", args=[pk]))
    form = forms.Reason(request.POST)
    try:
        changed = getattr(services, verb)(pk, actor=actor_of(request, "web"), reason=form.data.get("reason", "")[:500])
    except REFUSALS as error:
        return refused(request, error, to)
    undo.offer(request, reverse(f"web:node-{inverse}", args=[pk]), reason=f"undo: {verb}", next=to)
    return done(request, words.format(changed.name), to)


@require_POST
@needs("node.change")
def label(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(Node.objects, pk, "node")
    form = node_forms.Labels(request.POST)
    if not form.is_valid():
        return show(request, "nodes/labels.html", {"form": form, "node": row}, invalid=True)
    try:
        services.label(pk, labels=form.cleaned_data["labels"], actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "nodes/labels.html", {"form": form, "node": row}, error)
    return done(request, f"Changed the labels of {row.name}.", "web:node", pk)


@require_GET
@needs("node.change")
def labels(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(Node.objects, pk, "node")
    lines = "\n".join(f"{key}={value}" for key, value in row.labels.items())
    return show(request, "nodes/labels.html", {"form": node_forms.Labels(initial={"labels": lines}), "node": row})


@require_http_methods(["GET", "POST"])
@needs("node.revoke")
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    effect = (
        "Its agent is told to end its engines and itself, and its credentials open nothing more. "
        "This cannot be undone: the host can only join anew."
    )
    return _destroy(request, pk, "Revoke", services.revoke_node, effect, "web:node", pk)


@require_http_methods(["GET", "POST"])
@needs("node.remove")
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    effect = "Deletes the node with its GPUs, partitions and samples. The activity trail keeps its name."
    return _destroy(request, pk, "Remove", services.remove_node, effect, "web:nodes")


@require_http_methods(["GET", "POST"])
@needs("partition.change")
def split(request: HttpRequest, pk: int) -> HttpResponse:
    row = _row(pk)
    form = forms.Split(sent(request))
    context = {"row": row, "form": form, **_split_context(row)}
    if request.method == "GET" or not form.is_valid():
        return show(request, "nodes/split.html", context, invalid=form.is_bound)
    try:
        made = services.split_node(pk, **form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "nodes/split.html", context, error)
    count = f"{len(made)} partition{'' if len(made) == 1 else 's'}"
    return done(request, f"Split {row.node.name} into {count}. Next: assign them.", "web:node", pk)


@require_POST
@needs("partition.change")
def partition_add(request: HttpRequest, pk: int) -> HttpResponse:
    row = _row(pk)
    form = forms.NewPartition(request.POST)
    context = {"row": row, "form": forms.Split(), "one": form, **_split_context(row)}
    if not form.is_valid():
        return show(request, "nodes/split.html", context, invalid=True)
    try:
        name, gpus = form.cleaned_data["name"], form.cleaned_data["gpus"]
        made = services.create_partition(pk, name=name, gpu_indices=gpus, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "nodes/split.html", context, error)
    return done(request, f"Made partition {made.name}.", "web:node", pk)


@require_POST
@needs("partition.assign")
def plan(request: HttpRequest, pk: int) -> HttpResponse:
    row = _row(pk)
    form = forms.ApplyPlan(request.POST)
    context = {"row": row, "form": forms.Split(), **_split_context(row), "plan_form": form}
    if not form.is_valid():
        return show(request, "nodes/split.html", context, invalid=True)
    values = dict(form.cleaned_data)
    try:
        deployment = values.pop("deployment")
        made = services.apply_plan(pk, deployment_id=deployment, **values, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "nodes/split.html", context, error)
    return done(request, f"Split {row.node.name} and assigned its {len(made)} partitions.", "web:node", pk)


def _destroy(request: HttpRequest, pk: int, verb: str, service: Any, effect: str, *to: Any) -> HttpResponse:
    row = find(Node.objects, pk, "node")
    form = forms.Confirm(sent(request), expected=row.name)
    context = {"form": form, "noun": "node", "subject": row, "verb": verb, "effect": effect, "up": ("web:node", pk)}
    if request.method == "GET" or not form.is_valid():
        return show(request, "parts/confirm.html", context, invalid=form.is_bound)
    try:
        service(pk, actor=actor_of(request, "web"), reason=form.cleaned_data["reason"])
    except REFUSALS as error:
        return show(request, "parts/confirm.html", context, error)
    return done(request, f"{verb}d {row.name}.", *to)


def _row(pk: int) -> rows.NodeRow:
    row = rows.nodes(Node.objects.filter(pk=find(Node.objects.only("pk"), pk, "node").pk))[0]
    return replace(row, partitions=rows.with_last_words(row.partitions))


def _split_context(row: rows.NodeRow) -> dict[str, Any]:
    present = sorted(gpu.index for gpu in row.gpus if gpu.present)
    choices = []
    for name in presets_for(len(present)):
        count, size = (int(part) for part in name.split("x"))
        choices.append((name, [present[n * size : (n + 1) * size] for n in range(count)]))
    busy = [r for r in row.partitions if r.partition.deployment_id or r.status != "unassigned"]
    fitting = any(ready_made.gpu_count == len(present) for ready_made in PLANS.values())
    offered = fitting and not busy and Deployment.objects.exists()
    return {"presets": choices, "busy": busy, "plan_form": forms.ApplyPlan() if offered else None}


def _log(request: HttpRequest, row: rows.NodeRow) -> int | str | None:
    """Which log to follow: the agent's or the partition's that is asked for, else of the first that has an engine."""
    if request.GET.get("log") == "agent" and roles.allows(request.user, "log.system"):
        return "agent"
    known = {str(part.partition.pk): part.partition.pk for part in row.in_use}
    return known.get(request.GET.get("log", ""), next(iter(known.values()), None))


def _about(node: Node) -> Q:
    """Events on the node itself and on its partitions and GPUs, whose names begin with its own."""
    return Q(subject_type="node", subject_id=node.pk) | Q(subject_name__startswith=f"{node.name}/")
