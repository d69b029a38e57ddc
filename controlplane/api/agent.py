"""The agents' uplink: join, and the report that every node sends each second. No session, no cookie, no HTML.

Requests run on a few threads of their own that keep their database connection. Django gives each request a thread
and with it a connection of its own, which costs more than the report itself (measured: 1.6 against 0.75 ms of CPU).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from controlplane.fleet import reports, services
from controlplane.fleet.credentials import digest
from controlplane.fleet.errors import UnknownNode, UplinkError
from controlplane.fleet.models import Node
from controlplane.telemetry import logs
from controlplane.telemetry import services as telemetry
from workers.contract import LogWanted, NodeReport
from workers.joining import JoinRequest

logger = logging.getLogger(__name__)
MAX_BODY = 2 * 1024 * 1024
JOINS_PER_MINUTE = 20  # from one address
RETRY_AFTER_S = 5
_encode = msgspec.json.Encoder().encode
_join_request = msgspec.json.Decoder(JoinRequest)
_node_report = msgspec.json.Decoder(NodeReport)
_joins: dict[str, list[float]] = {}
_joins_lock = threading.Lock()


@csrf_exempt
async def join(request: HttpRequest) -> HttpResponse:
    if refusal := _refuse_request(request):
        return refusal
    return await _on_own_thread(answer_join, request.body, _address(request))


@csrf_exempt
async def report(request: HttpRequest) -> HttpResponse:
    if refusal := _refuse_request(request):
        return refusal
    return await _on_own_thread(answer_report, request.body, request.headers.get("Authorization", ""))


def answer_join(body: bytes, address: str) -> HttpResponse:
    """Rate limited by address, so that join tokens cannot be tried out."""
    if not _may_try(address, time.monotonic()):
        return problem("too-many-joins", 429, "Too many attempts to join from this address.", retry_after_s=60)
    try:
        request = _join_request.decode(body)
        return _json(services.join(request, address_seen=address))
    except msgspec.DecodeError as error:
        return _undecodable(error)
    except UplinkError as error:
        return problem(error.code, error.status, error.message)


async def answer_report_on_a_thread(body: bytes, authorization: str, period_s: float, came_at: float) -> HttpResponse:
    return await _on_own_thread(answer_report, body, authorization, period_s, came_at)


def answer_report(
    body: bytes, authorization: str, period_s: float | None = None, came_at: float | None = None
) -> HttpResponse:
    """The token is looked at first: whoever has none learns nothing and costs one indexed query. `period_s`: how often
    to report from now on, if not as configured. `came_at`: unix seconds; a report that had to wait for its turn here
    makes neither a node silent nor its clock wrong."""
    now = timezone.now() if came_at is None else datetime.fromtimestamp(came_at, UTC)
    try:
        node = _node_of(authorization)
        if node.revoked:
            return problem("node-revoked", 410, f"{node.name} is revoked: its agent ends its engines and itself.")
        said = _node_report.decode(body)
        reply = reports.receive(said, node=node, now=now, period_s=period_s)
    except msgspec.DecodeError as error:
        return _undecodable(error)
    except UplinkError as error:
        return problem(error.code, error.status, error.message)
    return _json(msgspec.structs.replace(reply, logs=_figures(node, said, now)))


def _figures(node: Node, said: NodeReport, now: datetime) -> tuple[LogWanted, ...]:
    """Samples and logs are for people to look at: whatever fails there, the node gets its answer."""
    try:
        telemetry.take(node, said, now)
        logs.keep(node.pk, said.logs)
        return logs.wanted(node.pk)
    except Exception:
        logger.exception("the figures in the report of %s were not kept", node.name)
        return ()


def problem(code: str, status: int, detail: str, *, retry_after_s: int | None = None) -> HttpResponse:
    """`code` is the problem's type as it stands: agents act on it."""
    body = {"type": code, "title": code.replace("-", " ").capitalize(), "status": status, "detail": detail}
    response = HttpResponse(_encode(body), status=status, content_type="application/problem+json")
    if retry_after_s is not None:
        response["Retry-After"] = str(retry_after_s)
    return response


async def _on_own_thread(answer: Callable[..., HttpResponse], *arguments: bytes | str | float) -> HttpResponse:
    """Without threads of their own (FOREBAY_UPLINK_THREADS=0) requests run where Django puts synchronous code."""
    if not settings.UPLINK_THREADS:
        return await sync_to_async(_guarded)(answer, *arguments)
    return await asyncio.get_running_loop().run_in_executor(_threads(), _guarded, answer, *arguments)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings.UPLINK_THREADS, thread_name_prefix="uplink")


def _guarded(answer: Callable[..., HttpResponse], *arguments: bytes | str | float) -> HttpResponse:
    try:
        return answer(*arguments)
    except DatabaseError:
        logger.exception("the database failed an agent's request")
        if settings.UPLINK_THREADS:
            connection.close()  # the next request of this thread opens a new one
        return problem("database-unavailable", 503, "The database does not answer.", retry_after_s=RETRY_AFTER_S)


def _refuse_request(request: HttpRequest) -> HttpResponse | None:
    if request.method != "POST":
        response = problem("method-not-allowed", 405, "Only POST is understood here.")
        response["Allow"] = "POST"
        return response
    try:
        too_large = int(request.headers.get("Content-Length") or 0) > MAX_BODY or len(request.body) > MAX_BODY
    except RequestDataTooBig:
        too_large = True
    except ValueError:
        return problem("bad-request", 400, "Content-Length is no number.")
    return problem("body-too-large", 413, f"The body may hold {MAX_BODY} bytes.") if too_large else None


def _node_of(authorization: str) -> Node:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnknownNode
    node = Node.objects.defer("spec", "labels").filter(token_hash=digest(token.strip())).first()
    if node is None:
        raise UnknownNode
    return node


def _may_try(address: str, now: float) -> bool:
    """A window of a minute, kept in memory by address; addresses without a recent attempt are dropped."""
    with _joins_lock:
        for other in [other for other, tries in _joins.items() if now - tries[-1] > 60]:
            del _joins[other]
        tries = [at for at in _joins.get(address, ()) if now - at <= 60]
        allowed = len(tries) < JOINS_PER_MINUTE
        if allowed:
            _joins[address] = [*tries, now]
        return allowed


def _address(request: HttpRequest) -> str:
    return request.META.get("REMOTE_ADDR") or "unknown"


def _undecodable(error: msgspec.DecodeError) -> HttpResponse:
    """msgspec names the place, as in "Expected `int`, got `str` - at `$.replicas[...].pid`"."""
    return problem("invalid-body", 400, str(error))


def _json(value: msgspec.Struct) -> HttpResponse:
    return HttpResponse(_encode(value), content_type="application/json")
