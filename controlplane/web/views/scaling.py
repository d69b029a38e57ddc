"""Scaling: what each role of each dedicated deployment has and wants, the plan that is open, and those before it."""

from __future__ import annotations

import hashlib
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit.models import AuditEvent
from controlplane.audit.requests import actor_of
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid
from controlplane.scaling import plans
from controlplane.scaling import policy as rules
from controlplane.scaling.models import ScalingPlan
from controlplane.scaling.standing import standing, told_moves
from controlplane.web import undo
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, refused, sent, show
from controlplane.web.scaling_forms import Policy, as_fields

PER_PAGE = 20
NOTHING_NEW = 204
PAGE, POLICY = "scaling/scaling.html", "scaling/policy.html"


@require_GET
@needs("view")
def scaling(request: HttpRequest) -> HttpResponse:
    every = request.GET.get("superseded") == "1"
    rows = ScalingPlan.objects.exclude(state=ScalingPlan.State.OPEN).select_related("change")
    if not every:
        rows = rows.exclude(state=ScalingPlan.State.SUPERSEDED)
    context = {
        **_now(),
        "page": Paginator(rows, PER_PAGE).get_page(request.GET.get("page")),
        "every": every,
        "superseded": ScalingPlan.objects.filter(state=ScalingPlan.State.SUPERSEDED).count(),
    }
    return show(request, PAGE, context)


@require_GET
@needs("view")
def now(request: HttpRequest) -> HttpResponse:
    """The roles as they are; nothing where what is shown is still so."""
    context = _now()
    if request.GET.get("key") == context["key"]:
        return HttpResponse(status=NOTHING_NEW)
    return show(request, "scaling/_lanes.html", context)


@require_GET
@needs("view")
def open_plan(request: HttpRequest) -> HttpResponse:
    """The plan that is open. It stays as it is while it says the same, for somebody may be writing a reason in it."""
    context = _now()
    if request.GET.get("key") == context["plan_key"]:
        return HttpResponse(status=NOTHING_NEW)
    return show(request, "scaling/_open.html", context)


@require_GET
@needs("view")
def plan(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(ScalingPlan.objects.select_related("change"), pk, "plan")
    events = AuditEvent.objects.filter(subject_type="scalingplan", subject_id=pk)[:20]
    return show(request, "scaling/plan.html", {"plan": row, "moves": told_moves(row), "events": events})


@require_POST
@needs("partition.assign")
def apply(request: HttpRequest, pk: int) -> HttpResponse:
    row = _decide(request, pk, plans.apply)
    if isinstance(row, HttpResponse):
        return row
    return done(request, f"Plan {pk} is applied, as change {row.change_id}.", "web:change", row.change_id)


@require_POST
@needs("capacity.change")
def dismiss(request: HttpRequest, pk: int) -> HttpResponse:
    row = _decide(request, pk, plans.dismiss)
    if isinstance(row, HttpResponse):
        return row
    return done(request, f"Plan {pk} is dismissed: the same moves are not proposed for an hour.", "web:scaling")


@require_http_methods(["GET", "POST"])
@needs("capacity.change")
def policy(request: HttpRequest) -> HttpResponse:
    before = rules.current()
    form = Policy(sent(request), initial=as_fields(before))
    if request.method == "GET" or not form.is_valid():
        return show(request, POLICY, {"form": form}, invalid=form.is_bound)
    seen, reason = form.cleaned_data["expected_version"], form.cleaned_data["reason"]
    try:
        row = rules.change(**form.values(), expected_version=seen, reason=reason, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, POLICY, {"form": form}, error)
    if row.version == before.version:
        return done(request, "Nothing was different: the scaling policy stays as it is.", "web:scaling")
    old = as_fields(before) | {"expected_version": row.version, "reason": "undo: scaling policy"}
    undo.offer(request, reverse("web:scaling-policy"), **{name: value for name, value in old.items() if value})
    return done(request, "The scaling policy is changed; it holds from the next look.", "web:scaling")


def _decide(request: HttpRequest, pk: int, service: Any) -> ScalingPlan | HttpResponse:
    """The plan after it; or the refusal, told on the page of plans."""
    find(ScalingPlan.objects, pk, "plan")
    reason = request.POST.get("reason", "").strip()[:500]
    try:
        if not reason:
            raise Invalid([Problem("reason", "Say why: it is kept with the plan.")])
        return service(pk, actor=actor_of(request, "web"), reason=reason)
    except REFUSALS as error:
        return refused(request, error, "web:scaling")


def _now() -> dict[str, Any]:
    found = standing(timezone.now())
    unmet = any(lane.wanted != lane.count for lane in found.lanes)
    return {
        "found": found,
        "plan": found.plan,
        "moves": told_moves(found.plan) if found.plan else [],
        "policy": rules.current(),
        "deployments": len({lane.deployment_id for lane in found.lanes}),
        "short": sum(lane.short for lane in found.lanes),
        "unmet": unmet,
        "key": _key(found.looked_at, found.is_late),
        "plan_key": _key(*_said(found.plan), found.is_late, found.dedicated, unmet),
    }


def _said(plan: ScalingPlan | None) -> tuple[object, ...]:
    """What a person would want to see anew."""
    if plan is None:
        return (None,)
    preview = plan.preview
    told = [row["message"] for name in ("problems", "warnings") for row in preview.get(name, [])]
    return (
        plan.pk,
        plan.held_back,
        told,
        preview.get("effects") and [row["engines_after"] for row in preview["effects"]],
    )


def _key(*shown: object) -> str:
    return hashlib.blake2b(repr(shown).encode(), digest_size=8).hexdigest()
