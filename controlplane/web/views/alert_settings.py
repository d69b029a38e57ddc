"""The limits of alert rules, and who is told."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.alerts import services
from controlplane.alerts.models import AlertRule, AlertTarget
from controlplane.audit.requests import actor_of
from controlplane.web import alert_forms as forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, sent, show


@require_GET
@needs("view")
def rules(request: HttpRequest) -> HttpResponse:
    found = [(rule, forms.words_of(rule)) for rule in AlertRule.objects.all()]
    return show(request, "alerts/rules.html", {"rules": found})


@require_http_methods(["GET", "POST"])
@needs("alert.configure")
def rule(request: HttpRequest, pk: int) -> HttpResponse:
    found = find(AlertRule.objects, pk, "alert rule")
    form = forms.Rule(sent(request), rule=found)
    context = {"rule": found, "form": form}
    if request.method == "GET" or not form.is_valid():
        return show(request, "alerts/rule.html", context, invalid=form.is_bound)
    try:
        services.change_rule(pk, **form.values(), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "alerts/rule.html", context, error)
    return done(request, f"{found.kind.title}: the new limits hold within 10 s.", "web:alert-rules")


@require_http_methods(["GET", "POST"])
@needs("alert.configure")
def targets(request: HttpRequest) -> HttpResponse:
    form = forms.NewTarget(sent(request))
    context: dict[str, Any] = {"form": form, "targets": AlertTarget.objects.all()}
    if request.method == "GET" or not form.is_valid():
        return show(request, "alerts/targets.html", context, invalid=form.is_bound)
    try:
        made = services.create_target(**form.values(), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "alerts/targets.html", context, error)
    return done(request, f"Made {made}. Try it out before you need it.", "web:alert-targets")


@require_http_methods(["GET", "POST"])
@needs("alert.configure")
def target(request: HttpRequest, pk: int) -> HttpResponse:
    found = find(AlertTarget.objects, pk, "alert target")
    form = forms.Target(sent(request), target=found)
    context = {"target": found, "form": form}
    if request.method == "GET" or not form.is_valid():
        return show(request, "alerts/target.html", context, invalid=form.is_bound)
    try:
        services.change_target(pk, **form.values(), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "alerts/target.html", context, error)
    return done(request, f"Changed {form.cleaned_data['name']}.", "web:alert-targets")


@require_POST
@needs("alert.configure")
def target_test(request: HttpRequest, pk: int) -> HttpResponse:
    found = find(AlertTarget.objects, pk, "alert target")
    outcome = services.try_target(pk, actor=actor_of(request, "web"))
    if outcome.ok:
        messages.success(request, f"{found} took the test message. {outcome.message}")
    else:
        messages.error(request, f"{found} did not take the test message. {outcome.message}")
    return redirect("web:alert-targets")


@require_POST
@needs("alert.configure")
def target_delete(request: HttpRequest, pk: int) -> HttpResponse:
    found = find(AlertTarget.objects, pk, "alert target")
    services.delete_target(pk, actor=actor_of(request, "web"))
    return done(request, f"Deleted {found}: it is told of nothing any more.", "web:alert-targets")
