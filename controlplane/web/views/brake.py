"""The brake that many silent nodes put on: its banner, its page, releasing it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET, require_POST

from controlplane.audit.requests import actor_of
from controlplane.fleet import services
from controlplane.fleet.brake import state
from controlplane.web import forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, show

NOTHING_NEW = 204  # the page keeps what it has


@require_GET
@needs("view")
def banner(request: HttpRequest) -> HttpResponse:
    """Asked for by every open page, with the key of what it shows."""
    found = state()
    if request.GET.get("key") == found.key:
        return HttpResponse(status=NOTHING_NEW)
    return show(request, "parts/_brake.html", {"brake": found})


@require_GET
@needs("view")
def brake(request: HttpRequest) -> HttpResponse:
    return show(request, "fleet/brake.html", {"brake": state(), "form": forms.ReleaseBrake()})


@require_POST
@needs("brake.release")
def release(request: HttpRequest) -> HttpResponse:
    form = forms.ReleaseBrake(request.POST)
    if not form.is_valid():
        return show(request, "fleet/brake.html", {"brake": state(), "form": form}, invalid=True)
    minutes, reason = form.cleaned_data["minutes"], form.cleaned_data["reason"]
    try:
        services.release_brake(for_s=60 * minutes, reason=reason, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "fleet/brake.html", {"brake": state(), "form": form}, error)
    return done(request, f"Released the brake for {minutes} min.", "web:brake")


@require_POST
@needs("brake.release")
def restore(request: HttpRequest) -> HttpResponse:
    services.restore_brake(actor=actor_of(request, "web"))
    return done(request, "The brake holds again.", "web:brake")
