"""Where agents' reports come in, before Django: a thousand nodes that say what they said a second ago cost little.

A report that says nothing new is answered here, on the event loop, from memory. Any other one goes the long way, which
is `agent.answer_report` on a thread; so does what is no plain report. docs/adr/0015 has the measurements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.http import HttpResponse

from controlplane.api import agent
from controlplane.domain.pacing import Pace, next_pace
from controlplane.fleet import reports
from controlplane.fleet.credentials import digest
from controlplane.fleet.heard import Entry, heard
from controlplane.fleet.outline import Outline
from controlplane.telemetry import logs, process_figures
from controlplane.telemetry import services as telemetry
from workers.contract import ReportReply

log = structlog.get_logger(__name__)

PATH = "/agent/v1/report"
MOST_WAITING = 128  # reports for a thread, a second's work or two; beyond it agents are told to come again
TICK_S = 0.1
LOOK_S = 1.0
RETRY_AFTER_S = 2
_HEADERS = [(b"content-type", b"application/json")]
_decode = msgspec.json.Decoder(Outline).decode
_encode = msgspec.json.Encoder().encode
Message = dict[str, Any]
App = Callable[[Message, Any, Any], Awaitable[None]]


class Door:
    """The ASGI application in front of `app`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.path, self.most_bytes = PATH.encode(), agent.MAX_BODY
        self.pace = Pace()
        self.waiting = self.short = self.long = self.refused = 0  # reports
        self._late_s = 0.0
        self._watch: asyncio.Task[None] | None = None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        self._look_at_pace()
        began = time.perf_counter()
        process_figures.report(await self._take_in(scope, receive, send), time.perf_counter() - began)

    def at_once(self, body: bytes, authorization: str) -> bytes | None:
        """The answer to a whole report that says nothing new; None for any other, which comes in by `__call__`. For
        `controlplane.wire`, on the event loop."""
        self._look_at_pace()
        began = time.perf_counter()
        said = self._known(body, authorization)
        reply = said and self._reply(*said, time.time())
        if not reply:
            return None
        process_figures.report(200, time.perf_counter() - began)
        return reply

    async def _take_in(self, scope: Message, receive: Any, send: Any) -> int:
        """Answers, and tells the status."""
        body = await _body(receive)
        if body is None:
            return await _answer(
                send, agent.problem("body-too-large", 413, f"The body may hold {agent.MAX_BODY} bytes.")
            )
        came_at, token = time.time(), _bearer(scope["headers"])
        said = self._known(body, token)
        reply = said and self._reply(*said, came_at)
        if reply:
            headers = [*_HEADERS, (b"content-length", b"%d" % len(reply))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": reply})
            return 200
        if self.waiting < MOST_WAITING:
            return await _answer(send, await self._in_turn(body, token, came_at))
        return await _answer(send, self._not_now(said, came_at))

    def _known(self, body: bytes, authorization: str) -> tuple[Outline, Entry] | None:
        """The report and its node, where both are as they should be; any other is told on a thread what it lacks."""
        entry = heard.find(digest(authorization[7:].strip())) if authorization[:7].lower() == "bearer " else None
        if entry is None or not entry.is_usable:
            return None
        try:
            return _decode(body), entry
        except msgspec.DecodeError:
            return None

    def _reply(self, report: Outline, entry: Entry, at: float) -> bytes | None:
        """The answer to a report that says nothing new, and asks for nothing; None for any other."""
        if report.logs or logs.is_wanted_of(entry.id) or not reports.is_nothing_new(report, entry, at):
            return None
        telemetry.take_soon(entry.id, report, at)
        self.short += 1
        process_figures.reports_from_memory.inc()
        return _encode(ReportReply(at=at, period_s=self._period_s(report)))

    async def _in_turn(self, body: bytes, authorization: str, came_at: float) -> HttpResponse:
        self.long += 1
        self.waiting += 1
        try:
            return await agent.answer_report_on_a_thread(body, authorization, self.wanted_s(), came_at)
        finally:
            self.waiting -= 1

    def _not_now(self, said: tuple[Outline, Entry] | None, at: float) -> HttpResponse:
        self.refused += 1
        if said and said[0].instance == said[1].instance:
            heard.see(said[1].id, said[0].instance, at)
        message = "More reports wait than can be taken in. Nothing is lost: the next one says it all again."
        return agent.problem("overloaded", 503, message, retry_after_s=RETRY_AFTER_S)

    def _period_s(self, report: Outline) -> float | None:
        wanted_s = self.wanted_s()
        return wanted_s if report.period_s != wanted_s else None

    def wanted_s(self) -> float:
        """How often nodes shall report at present."""
        return self.pace.period_s(settings.REPORT_PERIOD_S, settings.SILENT_AFTER_S)

    def _look_at_pace(self) -> None:
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_pace(), name="report-pace")

    async def _keep_pace(self) -> None:
        """See how late the event loop is, and let agents report as often as can be taken in."""
        loop = asyncio.get_running_loop()
        look_at = loop.time() + LOOK_S
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self._late_s = max(self._late_s, loop.time() - due)
            if loop.time() < look_at:
                continue
            before, look_at = self.pace, loop.time() + LOOK_S
            self.pace = next_pace(before, late_s=self._late_s, waiting=self.waiting, now=time.time())
            if self.pace.step != before.step:
                log.warning("agents report less or more often", late_s=round(self._late_s, 3), step=self.pace.step)
            self._late_s = 0.0


async def _body(receive: Any) -> bytes | None:
    """None when it is too large."""
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body"):
        return body if len(body) <= agent.MAX_BODY else None
    pieces = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > agent.MAX_BODY or message["type"] == "http.disconnect":
            return None
    return b"".join(pieces)


def _bearer(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"authorization":
            return value.decode("latin-1")
    return ""


async def _answer(send: Any, response: HttpResponse) -> int:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
    headers.append((b"content-length", b"%d" % len(response.content)))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})
    return response.status_code
