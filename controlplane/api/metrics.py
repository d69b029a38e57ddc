"""The web process's own figures for Prometheus. They name routes and models, so they need a token like all else."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django_prometheus import exports
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView


class Text(BaseRenderer):
    """So that a scraper's Accept header is served; a refusal is the problem's own text."""

    media_type = "text/plain"
    format = "txt"
    charset = "utf-8"

    def render(self, data: Any, media_type: str | None = None, context: dict[str, Any] | None = None) -> str:
        return str(data.get("detail", data)) if isinstance(data, dict) else str(data)


class Metrics(APIView):
    role_action = "view"
    renderer_classes = [Text]

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        return exports.ExportToDjangoView(request._request)
