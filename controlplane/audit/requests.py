"""The Actor behind an HTTP request."""

from __future__ import annotations

from django.http import HttpRequest

from controlplane.audit import people
from controlplane.audit.services import Actor


def actor_of(request: HttpRequest, source: str) -> Actor:
    """`source` is "web" or "rest". DRF requests work too."""
    plain = getattr(request, "_request", request)
    name = request.user.get_username()
    return Actor(
        name=f"service {name}" if people.is_service(request.user) else name,
        source=source,
        user=request.user,
        request_id=getattr(plain, "request_id", ""),
        address=plain.META.get("REMOTE_ADDR", ""),
    )
