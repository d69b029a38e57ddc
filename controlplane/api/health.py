"""Is the control plane up: the one address that needs no login, for probes and load balancers."""

from __future__ import annotations

import logging
from http import HTTPStatus

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

logger = logging.getLogger(__name__)

UP, DEGRADED, DOWN = "up", "degraded", "down"
STATUSES = [UP, DEGRADED, DOWN]
UP_OR_DOWN = [UP, DOWN]
PROBE_TIMEOUT_S = 1.0


class HealthShape(serializers.Serializer):
    status = serializers.ChoiceField(STATUSES, help_text="degraded: only the broker is down.")
    version = serializers.CharField()
    database = serializers.ChoiceField(UP_OR_DOWN)
    broker = serializers.ChoiceField(UP_OR_DOWN)


class Health(APIView):
    authentication_classes: list[type] = []
    permission_classes = [AllowAny]

    @extend_schema(
        operation_id="health",
        summary="Whether the control plane is up",
        description=(
            "200 while the database answers, 503 when it does not. Without the broker changes still arrive with the "
            "nodes' next reports, so that alone is `degraded`, with 200."
        ),
        tags=["system"],
        auth=[],
        responses={200: HealthShape, 503: HealthShape},
        examples=[
            OpenApiExample(
                "up",
                value={"status": UP, "version": settings.VERSION, "database": UP, "broker": UP},
                status_codes=["200"],
            )
        ],
    )
    def get(self, request: Request) -> Response:
        database, broker = _database(), _broker()
        status = DOWN if database == DOWN else DEGRADED if broker == DOWN else UP
        body = {"status": status, "version": settings.VERSION, "database": database, "broker": broker}
        return Response(body, HTTPStatus.SERVICE_UNAVAILABLE if status == DOWN else HTTPStatus.OK)


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        logger.warning("health: the database does not answer: %s", error)
        return DOWN
    return UP


def _broker() -> str:
    """Never says why in the answer: the reason may hold an address."""
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=PROBE_TIMEOUT_S, socket_timeout=PROBE_TIMEOUT_S
        ) as client:
            client.ping()
    except redis.RedisError as error:
        logger.warning("health: the broker does not answer: %s", error)
        return DOWN
    return UP
