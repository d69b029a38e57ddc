"""How one deployment is doing, and the playground that talks to it through the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_GET, require_POST

from controlplane.domain.lengths import LEVELS
from controlplane.fleet.facts import facts_of
from controlplane.fleet.models import Deployment
from controlplane.gateway import services as gateway
from controlplane.scaling import policy as scaling_policy
from controlplane.scaling.models import LaneLook
from controlplane.web import charts, rows
from controlplane.web.access import needs
from controlplane.web.answers import find, show

_PASSED = ("x-request-id", "x-forebay-path", "x-forebay-prefill", "x-forebay-decode", "server-timing", "retry-after")
_LONGEST_BODY = 256 * 1024
SLACK_S = 120.0  # beyond what the gateway holds a request for a model that is being woken


@require_GET
@needs("view")
def deployment(request: HttpRequest, pk: int) -> HttpResponse:
    row = find(Deployment.objects.select_related("model"), pk, "deployment")
    replicas = _replicas(row)
    known = {str(replica.partition.pk): replica.partition.pk for replica in replicas}
    log = known.get(request.GET.get("log", ""), next(iter(known.values()), None))
    roles = {replica.partition.pk: replica.partition.role for replica in replicas}
    context = {"deployment": row, "facts": facts_of(row.model), "replicas": replicas, "log": log}
    context |= {"charts": charts.of_deployment(row, set(roles.values())), "roles": json.dumps(roles)}
    context["lanes"] = LaneLook.objects.filter(deployment=row)
    return show(request, "deployments/detail.html", {**context, "gateway_url": settings.GATEWAY_URL})


@require_GET
@needs("view")
def replicas(request: HttpRequest, pk: int) -> HttpResponse:
    """The replicas as they are now: asked for when the live view says that something changed."""
    row = find(Deployment.objects, pk, "deployment")
    return show(request, "deployments/_replicas.html", {"deployment": row, "replicas": _replicas(row)})


@require_GET
@needs("view")
def speed(request: HttpRequest, pk: int) -> HttpResponse:
    """What its engines were measured to do, and how many it needs. The figures come over REST."""
    row = find(Deployment.objects.select_related("model"), pk, "deployment")
    engines = [replica.partition for replica in _replicas(row)]
    sure = scaling_policy.current().lengths_level
    levels = [(level, f"{100 * level:g}%") for level in sorted({*LEVELS, sure})]
    context = {"deployment": row, "engines": engines, "levels": levels, "sure": sure}
    return show(request, "deployments/speed.html", context)


@require_POST
@needs("playground")
async def playground(request: HttpRequest, name: str) -> HttpResponseBase:
    """Pass a chat on to the gateway and its stream back, with what it says of the replicas that served."""
    try:
        body = _chat(request.body, name)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        return _problem(400, f"The message could not be read: {error}.")
    key = await sync_to_async(gateway.internal_key)()
    client = httpx.AsyncClient(timeout=_wait(), trust_env=False)
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": request.request_id}
    try:
        outgoing = client.build_request(
            "POST", f"{settings.GATEWAY_URL}/v1/chat/completions", json=body, headers=headers
        )
        answer = await client.send(outgoing, stream=True)
    except httpx.HTTPError as error:
        await client.aclose()
        return _problem(502, f"The gateway at {settings.GATEWAY_URL} did not answer ({type(error).__name__}).")
    kept = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
    kind = answer.headers.get("content-type", "application/json")
    return StreamingHttpResponse(
        _relay(client, answer),
        status=answer.status_code,
        content_type=kind,
        headers={**kept, "Cache-Control": "no-store"},
    )


def _wait() -> httpx.Timeout:
    return httpx.Timeout(connect=3, read=settings.GATEWAY_HOLD_S + SLACK_S, write=10, pool=3)


def _replicas(deployment: Deployment) -> list[rows.PartitionRow]:
    found = rows.partitions(rows.PARTITIONS.filter(deployment=deployment))
    order = ["prefill", "decode", "aggregated"]
    return sorted(rows.with_last_words(found), key=lambda row: (order.index(row.partition.role), str(row.partition)))


def _chat(raw: bytes, name: str) -> dict[str, Any]:
    """Only what the page offers; the model is the one of the address."""
    if len(raw) > _LONGEST_BODY:
        raise ValueError("it is too long")
    given = json.loads(raw)
    turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in given["messages"]]
    return {
        "model": name,
        "messages": turns,
        "max_tokens": max(1, min(int(given.get("max_tokens", 256)), 8192)),
        "temperature": max(0.0, min(float(given.get("temperature", 0.0)), 2.0)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _relay(client: httpx.AsyncClient, answer: httpx.Response) -> AsyncIterator[bytes]:
    """A page that goes away ends this, which closes the way to the gateway, which ends the request."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.HTTPError as error:
        told = {"error": {"message": f"The stream broke off ({type(error).__name__})."}}
        yield f"data: {json.dumps(told)}\n\n".encode()
    finally:
        await answer.aclose()
        await client.aclose()


def _problem(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": {"message": message}}, status=status)
