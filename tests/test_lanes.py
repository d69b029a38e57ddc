"""Requests share a few threads, each for itself while it is answered, and with them their database connections."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection, connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from controlplane.lanes import Lanes, OneHop

SCOPE = {
    "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "http_version": "1.1",
    "headers": [(b"host", b"localhost")], "server": ("localhost", 80), "client": ("127.0.0.1", 1),
}  # fmt: skip


class Answers:
    """An application that says which thread and which connection its requests had."""

    def __init__(self, at_once: int = 1) -> None:
        self.threads: list[int] = []
        self.connections: list[Any] = []
        self._all_here = asyncio.Barrier(at_once)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._all_here.wait()
        for _ in range(2):
            await sync_to_async(self._note)()

    def _note(self) -> None:
        connection.ensure_connection()
        self.threads.append(threading.get_ident())
        self.connections.append(connection.connection)
        close_old_connections()  # as Django does after each request


async def nothing(*_: Any) -> Any:
    return None


@pytest.mark.django_db(transaction=True)
async def test_the_next_request_has_the_thread_and_the_connection_of_the_last() -> None:
    answers = Answers()
    lanes = Lanes(answers)
    lanes.start()
    try:
        for _ in range(3):
            await lanes(SCOPE, nothing, nothing)
    finally:
        lanes.stop()
    assert len(set(answers.threads)) == 1
    assert threading.get_ident() not in answers.threads
    assert all(one is answers.connections[0] for one in answers.connections)


@pytest.mark.django_db(transaction=True)
async def test_who_asks_at_once_has_a_thread_for_himself_and_no_more_stay_than_are_kept() -> None:
    answers = Answers(at_once=4)
    lanes = Lanes(answers, kept=2)
    await asyncio.gather(*(lanes(SCOPE, nothing, nothing) for _ in range(4)))
    assert len(set(answers.threads)) == 4
    assert [answers.threads.count(one) for one in set(answers.threads)] == [2] * 4
    lasting = {thread for thread in threading.enumerate() if thread.ident in answers.threads}
    assert len(lasting) <= 4
    for thread in lasting:
        thread.join(0.5)
    assert sum(thread.is_alive() for thread in lasting) == 2
    lanes.stop()
    assert not any(thread.is_alive() for thread in lasting)


async def test_a_request_that_fails_gives_its_thread_back() -> None:
    async def fails(*_: Any) -> None:
        await sync_to_async(threading.get_ident)()
        raise ValueError("boom")

    lanes = Lanes(fails)
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(ValueError, match="boom"):
            await lanes(SCOPE, nothing, nothing)
    assert threading.active_count() == before + 1
    lanes.stop()


@pytest.mark.django_db(transaction=True)
async def test_connections_are_kept_between_start_and_stop_alone_and_by_lanes_alone() -> None:
    answers, before = Answers(), dict(connections.settings["default"])
    lanes = Lanes(answers)
    await lanes(SCOPE, nothing, nothing)
    lanes.start()
    await lanes(SCOPE, nothing, nothing)
    lanes.stop()
    await lanes(SCOPE, nothing, nothing)
    lanes.stop()
    kept = [first is second for first, second in zip(answers.connections[::2], answers.connections[1::2], strict=True)]
    assert kept == [False, True, False]
    assert connections.settings["default"] == before, "other threads open and close theirs as ever"


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(threading.get_ident()), headers={"Outer": request.headers["outer"]})


async def native(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(str(asyncio.get_running_loop() is LOOPS[0]))


async def streamed(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> Any:
        for part in ("a", "b"):
            await asyncio.sleep(0)
            yield f"{part}{asyncio.get_running_loop() is LOOPS[0]} "

    return StreamingHttpResponse(parts())


def outer(get_response: Any) -> Any:
    """A middleware that only knows threads, as WhiteNoise's and Django Prometheus's do."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.META["HTTP_OUTER"] = str(threading.get_ident())
        return get_response(request)

    return middleware


LOOPS: list[asyncio.AbstractEventLoop] = []
urlpatterns = [path("plain", plain), path("native", native), path("streamed", streamed)]


async def ask(handler: OneHop, where: str) -> tuple[dict[bytes, bytes], str]:
    said: list[Any] = []
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return asked.pop() if asked else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        said.append(message)

    await handler({**SCOPE, "path": f"/{where}"}, receive, send)
    return dict(said[0]["headers"]), b"".join(message.get("body", b"") for message in said[1:]).decode()


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.outer", "django.middleware.common.CommonMiddleware"])
async def test_middleware_and_view_run_in_one_call_while_async_views_and_streams_run_on_the_loop() -> None:
    LOOPS[:] = [asyncio.get_running_loop()]
    handler = OneHop()
    headers, thread = await ask(handler, "plain")
    assert headers[b"Outer"].decode() == thread != str(threading.get_ident())
    assert (await ask(handler, "native"))[1] == "True"
    assert (await ask(handler, "streamed"))[1] == "aTrue bTrue "
