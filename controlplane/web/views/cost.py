"""Cost: whose the GPUs' time was, teams and their budgets, what nodes cost. The figures of usage come over REST."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit.requests import actor_of
from controlplane.costs import prices as pricing
from controlplane.costs import services as costs
from controlplane.costs.models import NodePrice, UsageHour
from controlplane.teams import budgets, services
from controlplane.teams.models import Team
from controlplane.web import cost_forms as forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, refused, sent, show


@require_GET
@needs("view")
def usage(request: HttpRequest) -> HttpResponse:
    context = {"has_usage": UsageHour.objects.exists(), "has_prices": NodePrice.objects.exists()}
    return show(request, "cost/usage.html", context | _currency())


@require_GET
@needs("view")
def teams(request: HttpRequest) -> HttpResponse:
    return show(request, "cost/teams.html", {"months": budgets.months(timezone.now()), **_currency()})


@require_http_methods(["GET", "POST"])
@needs("team.manage")
def team_new(request: HttpRequest) -> HttpResponse:
    form = forms.TeamForm(sent(request))
    context = {"form": form, **_currency()}
    if request.method == "GET" or not form.is_valid():
        return show(request, "cost/team.html", context, invalid=form.is_bound)
    try:
        team = services.create_team(**form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "cost/team.html", context, error)
    return done(request, f"Made {team}. Give it API keys under Settings, or with forebay team give.", "web:teams")


@require_http_methods(["GET", "POST"])
@needs("team.manage")
def team(request: HttpRequest, pk: int) -> HttpResponse:
    found = find(Team.objects, pk, "team")
    form = forms.TeamForm(sent(request), team=found)
    context = {"form": form, "team": found, **_currency()}
    if request.method == "GET" or not form.is_valid():
        return show(request, "cost/team.html", context, invalid=form.is_bound)
    try:
        services.change_team(pk, **form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "cost/team.html", context, error)
    return done(request, f"Changed {form.cleaned_data['name']}. Its limits hold within a second.", "web:teams")


@require_POST
@needs("team.manage")
def team_remove(request: HttpRequest, pk: int) -> HttpResponse:
    found = find(Team.objects, pk, "team")
    try:
        services.remove_team(pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return refused(request, error, "web:teams")
    return done(request, f"Removed {found.name}.", "web:teams")


@require_GET
@needs("view")
def prices(request: HttpRequest) -> HttpResponse:
    return _prices(request, forms.PriceForm())


@require_POST
@needs("price.set")
def price_set(request: HttpRequest) -> HttpResponse:
    form = forms.PriceForm(request.POST)
    if not form.is_valid():
        return _prices(request, form)
    try:
        rows = costs.set_price(**form.values(), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return _prices(request, form, error)
    of = "1 node" if len(rows) == 1 else f"{len(rows)} nodes"
    return done(request, f"Set the price of {of}.", "web:prices")


def _prices(request: HttpRequest, form: forms.PriceForm, error: Any = None) -> HttpResponse:
    chosen = set(form.data.getlist("nodes")) if form.is_bound else set()
    context = {"form": form, "costs": pricing.node_costs(timezone.now()), "chosen": chosen, **_currency()}
    return show(request, "cost/prices.html", context, error, invalid=form.is_bound)


def _currency() -> dict[str, str]:
    return {"currency": settings.CURRENCY}
