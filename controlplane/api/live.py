"""The fleet as it is now."""

from __future__ import annotations

import gzip

from django.http import HttpResponse
from django.utils.cache import patch_vary_headers
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.api.live_shapes import LiveShape
from controlplane.api.strict import refuse_unknown_parameters
from controlplane.audit import roles
from controlplane.gateway.summary import recent_summary
from controlplane.telemetry import live

WORTH_PACKING = 100_000  # bytes


class Live(APIView):
    role_action = "view"

    @extend_schema(
        operation_id="live",
        summary="The fleet as it is now",
        description="All nodes with their GPUs, partitions and latest figures at one moment. Null is unknown.",
        tags=["live"],
        responses=LiveShape,
    )
    def get(self, request: Request) -> HttpResponse:
        refuse_unknown_parameters(request, set())
        endpoints = roles.level_of(request.user) >= roles.Level.OPERATOR
        return _json(request, live.snapshot(summary=recent_summary, endpoints=endpoints))


def _json(request: Request, body: bytes) -> HttpResponse:
    """A large fleet is megabytes of much the same words: a tenth of it goes over the wire to who can unpack it."""
    answer = HttpResponse(body, content_type="application/json")
    if len(body) > WORTH_PACKING and "gzip" in request.headers.get("Accept-Encoding", ""):
        answer.content = gzip.compress(body, 1)
        answer["Content-Encoding"] = "gzip"
    patch_vary_headers(answer, ["Accept-Encoding"])
    return answer
