"""How many models are active, how many will be, and what to hold ready. The figures come over REST."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from controlplane.planning import history
from controlplane.web.access import needs


@require_GET
@needs("view")
def capacity(request: HttpRequest) -> HttpResponse:
    context = {"has_history": history.first() is not None, "keep_alive_s": settings.CAPACITY_KEEP_ALIVE_S}
    return render(request, "capacity/capacity.html", context)
