"""One partition: plan an assignment, apply it, release, delete."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from controlplane.audit.requests import actor_of
from controlplane.fleet import services
from controlplane.fleet.models import Deployment, Partition, Role
from controlplane.web import forms, rows, undo
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, back, done, find, sent, show


@require_GET
@needs("view")
def partition(request: HttpRequest, pk: int) -> HttpResponse:
    """A partition's place is its node's page."""
    row = find(Partition.objects, pk, "partition")
    return redirect(f"{reverse('web:node', args=[row.node_id])}?log={pk}#p{pk}")


@require_http_methods(["GET", "POST"])
@needs("partition.assign")
def assign(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(rows.PARTITIONS, pk, "partition")
    form = forms.Assign(sent(request), initial=_proposal(request, row))
    context = {
        "row": rows.partitions([row])[0],
        "form": form,
        "deployments": Deployment.objects.select_related("model"),
    }
    if request.method == "GET" or not form.is_valid():
        return show(request, "partitions/assign.html", {**context, **_plan(request, pk, form)}, invalid=form.is_bound)
    values = dict(form.cleaned_data)
    try:
        changed = services.assign(pk, deployment_id=values.pop("deployment"), **values, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "partitions/assign.html", {**context, **_plan(request, pk, form)}, error)
    _offer_undo(request, row, changed)
    to = back(request, reverse("web:node", args=[row.node_id]))
    return done(request, f"{row} shall be {changed.role} of {changed.deployment}.", to)


@require_GET
@needs("partition.assign")
def preview(request: HttpRequest, pk: int) -> HttpResponse:
    """What the form would do, as it stands now."""
    row = find(rows.PARTITIONS, pk, "partition")
    form = forms.Assign(request.GET)
    return show(
        request, "partitions/_plan.html", {"row": rows.partitions([row])[0], "form": form, **_plan(request, pk, form)}
    )


@require_http_methods(["GET", "POST"])
@needs("partition.assign")
def release(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(rows.PARTITIONS, pk, "partition")
    form = forms.Release(sent(request), initial={"expected_generation": row.generation})
    is_own = row.deployment is not None and not row.overflow
    peers = row.deployment.partitions.filter(role=row.role, overflow=False).exclude(pk=pk) if row.deployment else None
    is_last = is_own and peers is not None and not peers.exists()
    context = {"row": rows.partitions([row])[0], "form": form, "last": is_last}
    if request.method == "GET" or not form.is_valid():
        return show(request, "partitions/release.html", context, invalid=form.is_bound)
    try:
        changed = services.release(pk, **form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "partitions/release.html", context, error)
    _offer_undo(request, row, changed)
    return done(
        request, f"Released {row}: its engine drains and ends.", back(request, reverse("web:node", args=[row.node_id]))
    )


@require_http_methods(["GET", "POST"])
@needs("partition.change")
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(rows.PARTITIONS, pk, "partition")
    context = {"row": rows.partitions([row])[0]}
    if request.method == "GET":
        return show(request, "partitions/delete.html", context)
    try:
        services.delete_partition(pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "partitions/delete.html", context, error)
    return done(request, f"Deleted partition {row.name}; its GPUs are free.", "web:node", row.node_id)


def _proposal(request: HttpRequest, row: Partition) -> dict[str, Any]:
    role = request.GET.get("role", "")
    asked = request.GET.get("deployment", "")
    return {
        "deployment": int(asked) if asked.isdecimal() else row.deployment_id,
        "role": role if role in Role.values else _other(row.role),
        "expected_generation": row.generation,
    }


def _other(role: str) -> str:
    """What somebody who opens a running prefill replica's form most likely wants."""
    return {Role.PREFILL: Role.DECODE, Role.DECODE: Role.PREFILL}.get(role, role or Role.PREFILL)


def _plan(request: HttpRequest, pk: int, form: forms.Assign) -> dict[str, Any]:
    """Empty while no deployment is chosen; the page then says so."""
    deployment, role = form["deployment"].value(), form["role"].value()
    if not deployment and form.fields["deployment"].choices:
        deployment = form.fields["deployment"].choices[0][0]
    if not str(deployment or "").isdecimal() or role not in Role.values:
        return {"plan": None}
    try:
        return {
            "plan": services.preview_assign(
                pk, deployment_id=int(deployment), role=role, actor=actor_of(request, "web")
            )
        }
    except REFUSALS:
        return {"plan": None}


def _offer_undo(request: HttpRequest, before: Partition, changed: Partition) -> None:
    fields = {"reason": "undo", "expected_generation": changed.generation}
    if before.deployment_id:
        fields |= {"deployment": before.deployment_id, "role": before.role}
    undo.offer(request, reverse("web:assign" if before.deployment_id else "web:release", args=[before.pk]), **fields)
