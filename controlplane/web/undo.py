"""The inverse of the last reversible change, offered once beside its message."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

_KEY = "undo"


def offer(request: HttpRequest, url: str, **fields: Any) -> None:
    """A POST of `fields` to `url` takes the change back."""
    request.session[_KEY] = {"url": url, "fields": {name: value for name, value in fields.items() if value is not None}}


def take(request: HttpRequest) -> dict[str, Any] | None:
    return request.session.pop(_KEY, None) if hasattr(request, "session") else None
