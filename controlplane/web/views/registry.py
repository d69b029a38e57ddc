"""Models and how they are served."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from controlplane.audit.requests import actor_of
from controlplane.domain.model_facts import ModelFacts
from controlplane.fleet import selectors, services
from controlplane.fleet.facts import facts_of
from controlplane.fleet.models import Deployment, RegisteredModel, Role
from controlplane.web import charts, forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, sent, show
from controlplane.web.views import weights


@require_GET
@needs("view")
def models(request: HttpRequest) -> HttpResponse:
    counts = {role: Count("partitions", filter=Q(partitions__role=role)) for role in Role.values}
    deployments = list(Deployment.objects.select_related("model").annotate(**counts))
    now = timezone.now()
    serving, waking = selectors.serving_counts(now), selectors.waking(now)
    for row in deployments:
        row.assigned = sum(getattr(row, role) for role in counts)
        row.serving, row.waking = serving.get(row.pk, 0), row.pk in waking
    rows = [(model, facts_of(model)) for model in RegisteredModel.objects.annotate(served=Count("deployments"))]
    return show(request, "models/list.html", {"deployments": deployments, "models": rows})


@require_http_methods(["GET", "POST"])
@needs("model.register")
def register(request: HttpRequest) -> HttpResponse:
    form = forms.Register(sent(request), initial={"source": request.GET.get("source", "")})
    context = {"form": form, "fit_form": forms.Fit()}
    if request.method == "GET" or not form.is_valid():
        return show(request, "models/register.html", context, invalid=form.is_bound)
    try:
        model = services.register_model(**form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "models/register.html", context, error)
    return done(request, f"Registered {model.name}. Next: say how it is served.", "web:model", model.pk)


@require_GET
@needs("model.register")
def fit(request: HttpRequest) -> HttpResponse:
    """The facts of a source that is not saved yet, and whether it would fit, with the numbers."""
    assumed = forms.Fit(request.GET)
    source, revision = request.GET.get("source", "").strip(), request.GET.get("revision", "").strip()
    if not source or not assumed.is_valid():
        return show(request, "models/_fit.html", {"fit_form": assumed, "asked": bool(source)})
    try:
        facts = services.read_facts(source, revision)
        context = {"facts": facts, **fits(facts, assumed)}
    except REFUSALS as error:
        return show(request, "models/_fit.html", {"asked": True}, error)
    return show(request, "models/_fit.html", {"asked": True, **context})


@require_GET
@needs("view")
def model(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(RegisteredModel.objects, pk, "model")
    assumed = forms.Fit(request.GET if "tp" in request.GET else {"tp": "1", "concurrency": "8"})
    context: dict[str, Any] = {"model": row, "facts": facts_of(row), "fit_form": assumed}
    if assumed.is_valid():
        context |= fits(facts_of(row), assumed)
    context |= {
        "asked": True,
        "deployments": row.deployments.all(),
        **weights.model_context(row),
        "charts": charts.of_model(),
    }
    return show(request, "models/detail.html", context)


@require_http_methods(["GET", "POST"])
@needs("model.delete")
def model_delete(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(RegisteredModel.objects, pk, "model")
    form = forms.Confirm(sent(request), expected=row.name)
    context = {"form": form, "noun": "model", "subject": row, "verb": "Delete", "up": ("web:model", row.pk)}
    context["effect"] = "Forgets the model and its facts. Its files are not touched. It can be registered again."
    if request.method == "GET" or not form.is_valid():
        return show(request, "parts/confirm.html", context, invalid=form.is_bound)
    try:
        services.delete_model(row.pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "parts/confirm.html", context, error)
    return done(request, f"Deleted the model {row.name}.", "web:models")


@require_http_methods(["GET", "POST"])
@needs("deployment.change")
def deployment_new(request: HttpRequest) -> HttpResponse:
    if not RegisteredModel.objects.exists():
        return redirect("web:models")
    form = forms.Serve(sent(request), initial=_proposal(request.GET.get("model", ""), request.GET.get("mode", "")))
    if request.method == "GET" or not form.is_valid():
        return show(request, "deployments/form.html", {"form": form}, invalid=form.is_bound)
    try:
        made = services.create_deployment(**form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "deployments/form.html", {"form": form}, error)
    return done(request, f"Created {made.name}. Next: assign partitions to it.", "web:deployment", made.pk)


@require_http_methods(["GET", "POST"])
@needs("deployment.change")
def deployment_edit(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(Deployment.objects, pk, "deployment")
    form = forms.Serve(sent(request), initial={name: getattr(row, name) for name in forms.Serve().fields})
    context = {"form": form, "deployment": row, "running": row.partitions.exclude(phase__in=["", "exited"]).count()}
    if request.method == "GET" or not form.is_valid():
        return show(request, "deployments/form.html", context, invalid=form.is_bound)
    try:
        force = "force" in request.POST
        services.update_deployment(row.pk, **form.cleaned_data, force=force, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "deployments/form.html", context, error)
    return done(request, f"Changed {row.name}.", "web:deployment", row.pk)


@require_http_methods(["GET", "POST"])
@needs("deployment.delete")
def deployment_delete(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(Deployment.objects, pk, "deployment")
    form = forms.Confirm(sent(request), expected=row.name)
    context = {"form": form, "noun": "deployment", "subject": row, "verb": "Delete", "up": ("web:deployment", row.pk)}
    context["effect"] = "Clients that ask for this name get 404 from then on. The model stays registered."
    if request.method == "GET" or not form.is_valid():
        return show(request, "parts/confirm.html", context, invalid=form.is_bound)
    try:
        services.delete_deployment(row.pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "parts/confirm.html", context, error)
    return done(request, f"Deleted the deployment {row.name}.", "web:models")


def fits(facts: ModelFacts, assumed: forms.Fit) -> dict[str, Any]:
    return {"fits": services.check_fit(facts, **assumed.cleaned_data)}


def _proposal(model: str, mode: str) -> dict[str, Any]:
    row = RegisteredModel.objects.filter(pk=model).first() if model.isdecimal() else None
    proposed: dict[str, Any] = {"mode": mode} if mode in Deployment.Mode.values else {}
    return proposed | ({"model_id": row.pk, "name": row.name.lower()} if row else {})
