"""Changes: the list, one change with its progress, and resume, roll back and undo."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit.models import AuditEvent
from controlplane.audit.requests import actor_of
from controlplane.domain.problems import Problem
from controlplane.fleet import services, versions
from controlplane.fleet.errors import Invalid
from controlplane.fleet.models import Change
from controlplane.scaling.models import ScalingPlan
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, back, done, refused
from controlplane.web.changes import ROWS, find_change, newest_changes, told
from controlplane.web.drafts import Draft
from controlplane.web.plans import confirm_word, panel, preview
from controlplane.web.templatetags.plans import is_quick
from controlplane.web.views.board import apply_draft, to_change

PER_PAGE = 50
STATES = [("", "All"), ("running", "Running"), ("stopped", "Stopped"), ("done", "Done"), ("rolled_back", "Rolled back")]


@require_GET
@needs("view")
def changes(request: HttpRequest) -> HttpResponse:
    state = request.GET.get("state", "")
    state = state if state in dict(STATES) else ""
    found = ROWS.order_by("-pk")
    page = Paginator(found.filter(state=state) if state else found, PER_PAGE).get_page(request.GET.get("page"))
    context = {"page": page, "rows": [told(row) for row in page], "states": STATES, "state": state}
    return render(request, "changes/list.html", context)


@require_GET
@needs("view")
def recent(request: HttpRequest) -> HttpResponse:
    return render(request, "changes/_recent.html", {"changes": newest_changes()})


@require_GET
@needs("view")
def change(request: HttpRequest, pk: int) -> HttpResponse:
    events = AuditEvent.objects.filter(subject_type="change", subject_id=pk)[:20]
    context = {"change": _find(pk), "events": events, "here": reverse("web:change", args=[pk])}
    context["plan"] = ScalingPlan.objects.filter(change_id=pk).first()
    return render(request, "changes/detail.html", context)


@require_GET
@needs("view")
def progress(request: HttpRequest, pk: int) -> HttpResponse:
    """The steps as they are now; the page asks each second while the change runs."""
    compact = bool(request.GET.get("compact"))
    here = reverse("web:board") if compact else reverse("web:change", args=[pk])
    found = _find(pk)
    answer = render(request, "changes/_progress.html", {"change": found, "compact": compact, "here": here})
    if found["state"] != Change.State.RUNNING:
        answer["HX-Trigger"] = "fleet-moved"  # what else the page shows of changes
    return answer


@require_POST
@needs("partition.assign")
def resume(request: HttpRequest, pk: int) -> HttpResponse:
    return _decide(request, pk, services.resume_change, "Change {} goes on.")


@require_POST
@needs("partition.assign")
def rollback(request: HttpRequest, pk: int) -> HttpResponse:
    return _decide(request, pk, services.roll_back_change, "Change {} is rolled back, one step at a time.")


@require_http_methods(["GET", "POST"])
@needs("partition.assign")
def undo(request: HttpRequest, pk: int) -> HttpResponse:
    """GET previews the inverse. POST applies it: as previewed, or at once where only routing changes back."""
    _find(pk)
    to = back(request, reverse("web:change", args=[pk]))
    try:
        draft = Draft(tuple(services.inverse_moves(pk)))
    except REFUSALS as error:
        return refused(request, error, to)
    if not draft:
        return _slots_back(request, pk, to)
    if request.method == "GET":
        return render(request, "board/plan.html", panel(request, draft, undoes=pk, apply_url=request.path))
    if request.POST.get("quick"):
        return _at_once(request, pk, draft)
    return apply_draft(request, draft, request.POST, undoes=pk)


def _slots_back(request: HttpRequest, pk: int, to: str) -> HttpResponse:
    """Of a change that did to slots of the pool alone: there is nothing to preview."""
    if request.method == "GET":
        return redirect("web:change", pk)
    try:
        made = services.apply_change(
            [], version=versions.current(), actor=actor_of(request, "web"), reason=f"undo of change {pk}", kind="undo",
            undoes=pk,
        )  # fmt: skip
    except REFUSALS as error:
        return refused(request, error, to)
    return to_change(request, made.pk)


def _at_once(request: HttpRequest, pk: int, draft: Draft) -> HttpResponse:
    plan, _ = preview(request, draft)
    if plan is None or confirm_word(plan) or plan["problems"] or not is_quick(plan):
        return render(request, "board/plan.html", panel(request, draft, undoes=pk, apply_url=request.path), status=409)
    return apply_draft(request, draft, {"version": plan["version"], "reason": f"undo of change {pk}"}, undoes=pk)


def _decide(request: HttpRequest, pk: int, service: Any, words: str) -> HttpResponse:
    to = back(request, reverse("web:change", args=[pk]))
    reason = request.POST.get("reason", "").strip()[:500]
    if not reason:
        return refused(request, Invalid([Problem("reason", "Say why: it is kept with the change.")]), to)
    try:
        service(pk, actor=actor_of(request, "web"), reason=reason)
    except REFUSALS as error:
        return refused(request, error, to)
    return done(request, words.format(pk), f"{to}?change={pk}" if to == reverse("web:board") else to)


def _find(pk: int) -> dict[str, Any]:
    found = find_change(pk)
    if found is None:
        raise Http404(f"There is no change with the number {pk}.")
    return found
