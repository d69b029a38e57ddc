"""The page of an error of our own: it needs nothing that may be what failed."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseServerError
from django.template.loader import render_to_string


def failed(request: HttpRequest) -> HttpResponseServerError:
    """With the id under which the server's log tells of it: people do not see headers."""
    return HttpResponseServerError(render_to_string("500.html", {"request_id": getattr(request, "request_id", "")}))
