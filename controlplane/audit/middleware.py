"""Gives each request an id that the audit trail and the logs share."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse

_LAWFUL = re.compile(r"[A-Za-z0-9._-]{8,64}")


class RequestIdMiddleware:
    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if iscoroutinefunction(self):
            return self._acall(request)  # type: ignore[return-value]
        _mark(request)
        return _tell(request, self.get_response(request))

    async def _acall(self, request: HttpRequest) -> HttpResponse:
        _mark(request)
        return _tell(request, await self.get_response(request))  # type: ignore[misc]


def _mark(request: HttpRequest) -> None:
    given = request.headers.get("X-Request-ID", "")
    request.request_id = given if _LAWFUL.fullmatch(given) else secrets.token_hex(8)  # type: ignore[attr-defined]


def _tell(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    response["X-Request-ID"] = request.request_id  # type: ignore[attr-defined]
    return response
