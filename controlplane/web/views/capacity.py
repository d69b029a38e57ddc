"""How many models are active, how many will be, and what to hold ready. The figures come over REST."""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit.requests import actor_of
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.planning import comparing
from controlplane.planning import policy as rules
from controlplane.planning.beginning import beginning
from controlplane.planning.models import CapacityPolicy
from controlplane.planning.outlook import held
from controlplane.planning.weighing import HOURS, weigh
from controlplane.web import undo
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, refused, sent, show
from controlplane.web.capacity_beginning import lasting, steps
from controlplane.web.capacity_forms import Policy, as_fields
from controlplane.web.capacity_methods import section

PAGE, EFFECT = "capacity/policy.html", "capacity/_effect.html"


@require_GET
@needs("view")
def capacity(request: HttpRequest) -> HttpResponse:
    row, now = rules.current(), time.time()
    context = {"policy": row, "policy_percent": f"{100 * row.most_cold:.4g}", **_before(now)}
    if context["steps"] is None:
        context |= section(now)
    return render(request, "capacity/capacity.html", context)


@require_GET
@needs("view")
def begins(request: HttpRequest) -> HttpResponse:
    """What is missing for a first forecast, asked for again until there is one: then the page is read anew."""
    context = _before(time.time())
    if context["steps"] is None:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "capacity/_begins.html", context)


@require_GET
@needs("view")
def methods(request: HttpRequest) -> HttpResponse:
    """The comparison of methods, asked for again while one is in work."""
    return render(request, "capacity/_methods.html", section(time.time()))


@require_POST
@needs("capacity.compare")
def compare(request: HttpRequest) -> HttpResponse:
    try:
        comparing.ask(actor=actor_of(request, "web"), now=time.time())
    except REFUSALS as error:
        return refused(request, error, "web:capacity")
    return done(request, "Methods are compared: it begins within a minute.", "web:capacity")


@require_http_methods(["GET", "POST"])
@needs("capacity.change")
def policy(request: HttpRequest) -> HttpResponse:
    before = rules.current()
    form = Policy(sent(request), initial=as_fields(before))
    if request.method == "GET" or not form.is_valid():
        return show(request, PAGE, {"form": form, **_effect(before, form)}, invalid=form.is_bound)
    seen, reason = form.cleaned_data["expected_version"], form.cleaned_data["reason"]
    try:
        row = rules.change(**form.values(), expected_version=seen, reason=reason, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, PAGE, {"form": form, **_effect(before, form)}, error)
    if row.version == before.version:
        return done(request, "Nothing was different: the capacity policy stays as it is.", "web:capacity")
    old = as_fields(before) | {"expected_version": row.version, "reason": "undo: capacity policy"}
    undo.offer(request, reverse("web:capacity-policy"), **old)
    return done(request, "The capacity policy is changed; it holds from the next minute.", "web:capacity")


@require_GET
@needs("capacity.change")
def policy_preview(request: HttpRequest) -> HttpResponse:
    """What the form would come to, as it stands."""
    form = Policy(request.GET)
    form.is_valid()
    return show(request, EFFECT, _effect(rules.current(), form))


def _before(now: float) -> dict[str, Any]:
    found = beginning(now)
    return {"steps": None if found is None else steps(found, now), "beginning": found}


def _effect(before: CapacityPolicy, form: Policy) -> dict[str, Any]:
    """Side by side: as it is, and as the form would have it where that makes sense."""
    effect: dict[str, Any] = {"now": _told(before)}
    if form.is_bound and form.is_valid():
        try:
            after = rules.changed(form.values())
        except REFUSALS as error:
            return {"effect": effect, "effect_problem": error.problems[0]}
        effect |= {"then": _told(after), "anew": after.keep_alive_s != before.keep_alive_s}
        effect["same"] = rules.shown(after) == rules.shown(before)
    return {"effect": effect, "effect_invalid": form.is_bound and not form.is_valid()}


def _told(row: CapacityPolicy) -> dict[str, Any]:
    weighed = weigh(row)
    return {
        "held": held(row, time.time()),
        "weighed": weighed,
        "on_record": lasting(DAY_S * weighed.days),
        "waits_per_day": None if weighed.waits_per_hour is None else 24 * weighed.waits_per_hour,
        "slot_hours": None if weighed.slots is None else HOURS * weighed.slots,
        "priced": row.gpu_hour_price is not None and row.cold_price is not None,
    }
