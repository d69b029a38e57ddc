"""Alerts: what fires, what fired, taking it on, silences."""

from __future__ import annotations

import hashlib
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.alerts import services
from controlplane.alerts.matching import in_force, silence_of, told
from controlplane.alerts.models import Alert, AlertTarget, Silence
from controlplane.audit.requests import actor_of
from controlplane.domain.alerting import SEVERITIES, Severity
from controlplane.web import alert_forms as forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, back, done, find, refused, sent, show

PER_PAGE = 50
MOST = 200  # that fire, on the page: beyond that nobody reads them one by one
NOTHING_NEW = 204


@require_GET
@needs("view")
def alerts(request: HttpRequest) -> HttpResponse:
    ended = Alert.objects.filter(state=Alert.State.RESOLVED).order_by("-resolved_at")
    page = Paginator(ended, PER_PAGE).get_page(request.GET.get("page"))
    context = {**_firing(), "page": page, "silences": in_force(timezone.now()), "has_targets": _has_targets()}
    return show(request, "alerts/list.html", context)


@require_GET
@needs("view")
def now(request: HttpRequest) -> HttpResponse:
    """The part that changes, with the key of what the page shows."""
    context = {**_firing(), "has_targets": _has_targets()}
    if request.GET.get("key") == context["key"]:
        return HttpResponse(status=NOTHING_NEW)
    return show(request, "alerts/_now.html", context)


@require_GET
@needs("view")
def badge(request: HttpRequest) -> HttpResponse:
    count = told(timezone.now())
    if request.GET.get("n") == str(count):
        return HttpResponse(status=NOTHING_NEW)
    return show(request, "parts/_alert_badge.html", {"count": count})


@require_GET
@needs("view")
def alert(request: HttpRequest, pk: int) -> HttpResponse:
    return _alert(request, pk, forms.Acknowledge())


@require_POST
@needs("alert.acknowledge")
def acknowledge(request: HttpRequest, pk: int) -> HttpResponse:
    form = forms.Acknowledge(request.POST)
    if not form.is_valid():
        return _alert(request, pk, form)
    try:
        services.acknowledge(pk, **form.cleaned_data, seen=request.POST.get("seen"), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return refused(request, error, back(request, "web:alerts"))
    return done(
        request, "It is yours: others see that you look after it.", back(request, reverse("web:alert", args=[pk]))
    )


@require_http_methods(["GET", "POST"])
@needs("alert.silence")
def silence(request: HttpRequest) -> HttpResponse:
    form = forms.Silence(sent(request), initial=_of_alert(request.GET.get("alert", "")))
    if request.method == "GET" or not form.is_valid():
        return show(request, "alerts/silence.html", {"form": form}, invalid=form.is_bound)
    try:
        made = services.silence(**form.values(), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "alerts/silence.html", {"form": form}, error)
    return done(request, f"Nobody is told of {made} until {made.until:%Y-%m-%d %H:%M} UTC.", "web:alerts")


@require_POST
@needs("alert.silence")
def silence_end(request: HttpRequest, pk: int) -> HttpResponse:
    found = find(Silence.objects, pk, "silence")
    services.end_silence(pk, actor=actor_of(request, "web"))
    return done(request, f"The silence of {found} is over. What fires still is told now.", "web:alerts")


def _alert(request: HttpRequest, pk: int, form: forms.Acknowledge) -> HttpResponse:
    found = find(Alert.objects, pk, "alert")
    sent_to = found.deliveries.select_related("target", "notification").order_by("pk")
    muted = None if found.state == Alert.State.RESOLVED else silence_of(found, in_force(timezone.now()))
    context = {"alert": found, "told": sent_to, "silence": muted, "form": form}
    return show(request, "alerts/detail.html", context, invalid=form.is_bound)


def _firing() -> dict[str, Any]:
    """Worst first, then newest; what nobody is told of last."""
    silences = in_force(timezone.now())
    rows = list(Alert.objects.filter(state=Alert.State.FIRING).order_by("-pk"))
    found = sorted(((row, silence_of(row, silences)) for row in rows), key=_rank)
    facts = repr([(row.pk, row.text, row.acknowledged_by, row.note, muted and muted.pk) for row, muted in found])
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    return {"firing": found[:MOST], "more": max(0, len(found) - MOST), "count": len(found), "key": key}


def _rank(pair: tuple[Alert, Silence | None]) -> tuple[bool, int, float]:
    row, muted = pair
    return muted is not None, -SEVERITIES.index(Severity(row.severity)), -(row.fired_at or row.since).timestamp()


def _has_targets() -> bool:
    return AlertTarget.objects.filter(enabled=True).exists()


def _of_alert(number: str) -> dict[str, str]:
    """A silence that is made from an alert begins with that very alert."""
    row = Alert.objects.filter(pk=int(number)).first() if number.isdecimal() and len(number) < 18 else None
    return {"rule": row.rule, "subject": row.subject_name} if row else {}
