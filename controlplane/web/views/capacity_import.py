"""Importing a history: what is taken, a look at a file before anything is kept, and keeping it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.audit.requests import actor_of
from controlplane.planning import uploads
from controlplane.planning.uploads import MOST_BYTES
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, problems_of, show
from controlplane.web.capacity_forms import Import

PAGE, LOOK = "capacity/import.html", "capacity/_look.html"


@require_http_methods(["GET", "POST"])
@needs("capacity.import")
def imports(request: HttpRequest) -> HttpResponse:
    form = _form(request) if request.method == "POST" else Import()
    if request.method == "GET" or not form.is_valid():
        return show(request, PAGE, {"form": form}, invalid=form.is_bound)
    try:
        made, note = uploads.import_sent(
            **_sent(form), now=time.time(), reason=form.cleaned_data["reason"], actor=actor_of(request, "web")
        )
    except REFUSALS as error:
        return show(request, PAGE, {"form": form}, error)
    more = f" {made.replaced} days of models took the place of those imported before." if made.replaced else ""
    words = f"Imported {made.requests} requests for {made.models} models.{more} Forecasts follow within minutes. {note}"
    return done(request, words.strip(), "web:capacity")


@require_POST
@needs("capacity.import")
def check(request: HttpRequest) -> HttpResponse:
    """What is in the file, before anything is kept."""
    form = _form(request)
    if not form.is_valid():
        return show(request, LOOK, {"nothing": True})
    try:
        sent = uploads.read_sent(**_sent(form), now=time.time())
    except REFUSALS as error:
        return show(request, LOOK, {"problems": problems_of(error)})
    told = sent.told
    moments = {name: datetime.fromtimestamp(getattr(told, name), UTC) for name in ("start", "end")}
    return show(request, LOOK, {"told": told, "note": sent.note, **moments})


def _form(request: HttpRequest) -> Import:
    return Import(request.POST, request.FILES)


def _sent(form: Import) -> dict[str, Any]:
    """One byte more than is taken is enough to refuse it."""
    file: UploadedFile = form.cleaned_data["trace"]
    data = file.read(MOST_BYTES + 1)
    return {"name": file.name or "the file", "data": data, "shift_to_now": form.cleaned_data["shift"] == "now"}
