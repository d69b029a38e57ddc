"""Who may change one node or one deployment: an admin gives it owners, or opens it to every operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from controlplane.audit.requests import actor_of
from controlplane.fleet import owners, services
from controlplane.fleet.models import Deployment, Node
from controlplane.web.access import needs
from controlplane.web.account_forms import Owners
from controlplane.web.answers import REFUSALS, done, find, sent, show


@require_http_methods(["GET", "POST"])
@needs("owners.change")
def node(request: HttpRequest, pk: int) -> HttpResponse:
    return _change(request, find(Node.objects, pk, "node"), services.set_node_owners, "web:node", "web:nodes")


@require_http_methods(["GET", "POST"])
@needs("owners.change")
def deployment(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(Deployment.objects, pk, "deployment")
    return _change(request, row, services.set_deployment_owners, "web:deployment", "web:models")


def _change(request: HttpRequest, row: Any, service: Callable[..., Model], up: str, list_: str) -> HttpResponse:
    held = owners.names(row)
    form = Owners(
        sent(request), lawful=sorted({*services.who_can_own(), *(held or [])}),
        initial={"restricted": held is not None, "owners": held or []},
    )  # fmt: skip
    context = {"form": form, "row": row, "noun": row._meta.verbose_name, "up": up, "list": list_}
    if request.method == "GET" or not form.is_valid():
        return show(request, "settings/owners.html", context, invalid=form.is_bound)
    try:
        service(row.pk, names=form.names, actor=actor_of(request, "web"), reason=form.cleaned_data["reason"])
    except REFUSALS as error:
        return show(request, "settings/owners.html", context, error)
    who = "every operator" if form.names is None else ", ".join([*form.names, "admins"])
    return done(request, f"{row} may now be changed by {who}.", up, row.pk)
