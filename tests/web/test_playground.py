"""The playground passes a chat to the gateway and its stream back, headers and all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient
from django.urls import reverse

from controlplane.web.views.deployments import SLACK_S
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": "8", "temperature": "0.5"}


@pytest.fixture(autouse=True)
async def no_session_left() -> AsyncIterator[None]:
    """The thread that async code reaches the database by keeps its session, and PostgreSQL its database with it."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
async def gateway(settings: object) -> AsyncIterator[list[dict]]:
    """A server in the gateway's place that keeps what it was asked."""
    asked: list[dict] = []

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked.append({"body": body, "key": request.headers["Authorization"]})
        if body["model"] == "waking":
            await asyncio.sleep(0.5)
        if body["model"] == "missing":
            return web.json_response({"error": {"message": "no such model", "code": 404}}, status=404)
        answer = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "x-forebay-path": "two_step",
                "x-forebay-prefill": "n/p0",
                "x-forebay-decode": "n/p1",
                "server-timing": "prefill;dur=12.5, transfer;dur=3.0",
                "x-secret": "no",
            }
        )
        await answer.prepare(request)
        for word in ("Hel", "lo"):
            await answer.write(f'data: {{"choices": [{{"delta": {{"content": "{word}"}}}}]}}\n\n'.encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer

    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    async with TestServer(application) as server:
        settings.GATEWAY_URL = str(server.make_url("")).rstrip("/")
        yield asked


async def client_of(role: str) -> AsyncClient:
    client = AsyncClient()
    user = await sync_to_async(factories.make_user)(role)
    await client.aforce_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


async def say(client: AsyncClient, name: str, body: object) -> object:
    return await client.post(reverse("web:playground", args=[name]), json.dumps(body), content_type="application/json")


async def drain(answer: object) -> bytes:
    return b"".join([piece async for piece in answer.streaming_content])


async def test_a_chat_is_streamed_back_with_who_served_it(gateway: list[dict]) -> None:
    answer = await say(await client_of("operator"), "org/chat", CHAT)
    text = (await drain(answer)).decode()
    assert answer.status_code == 200
    assert '"content": "Hel"' in text
    assert text.endswith("data: [DONE]\n\n")
    assert answer["x-forebay-prefill"] == "n/p0"
    assert answer["server-timing"] == "prefill;dur=12.5, transfer;dur=3.0"
    assert "x-secret" not in answer
    (asked,) = gateway
    assert asked["key"].startswith("Bearer ")
    assert asked["body"]["model"] == "org/chat"
    assert (asked["body"]["max_tokens"], asked["body"]["temperature"], asked["body"]["stream"]) == (8, 0.5, True)


async def test_the_page_cannot_choose_more_than_it_offers(gateway: list[dict]) -> None:
    body = CHAT | {"model": "other", "max_tokens": 10**9, "n": 5, "kv_transfer_params": {"x": 1}}
    await drain(await say(await client_of("operator"), "chat", body))
    assert gateway[0]["body"]["model"] == "chat"
    assert gateway[0]["body"]["max_tokens"] == 8192
    assert not {"n", "kv_transfer_params"} & set(gateway[0]["body"])


async def test_the_gateways_own_errors_are_passed_on(gateway: list[dict]) -> None:
    answer = await say(await client_of("operator"), "missing", CHAT)
    text = await drain(answer)
    assert answer.status_code == 404
    assert json.loads(text)["error"]["message"] == "no such model"


@pytest.mark.parametrize(
    "body", [[], {}, {"messages": "x"}, {"messages": [{"role": "user"}]}, CHAT | {"max_tokens": "many"}]
)
async def test_what_is_no_chat_is_refused(body: object, gateway: list[dict]) -> None:
    answer = await say(await client_of("operator"), "chat", body)
    assert answer.status_code == 400
    assert not gateway


async def test_a_model_that_is_woken_is_waited_for_as_long_as_the_gateway_holds_it(
    gateway: list[dict], settings: object
) -> None:
    client = await client_of("operator")
    settings.GATEWAY_HOLD_S = 0.1 - SLACK_S  # type: ignore[attr-defined]
    assert (await say(client, "waking", CHAT)).status_code == 502, "it would take longer"
    settings.GATEWAY_HOLD_S = 5.0 - SLACK_S  # type: ignore[attr-defined]
    answer = await say(client, "waking", CHAT)
    assert answer.status_code == 200
    assert (await drain(answer)).endswith(b"data: [DONE]\n\n")


async def test_a_gateway_that_is_down_is_told_in_words(settings: object) -> None:
    settings.GATEWAY_URL = "http://127.0.0.1:1"
    answer = await say(await client_of("operator"), "chat", CHAT)
    assert answer.status_code == 502
    assert "did not answer" in json.loads(answer.content)["error"]["message"]


async def test_a_viewer_has_no_playground(gateway: list[dict]) -> None:
    assert (await say(await client_of("viewer"), "chat", CHAT)).status_code == 403
    assert not gateway
