"""Refuses a body that is too large while it arrives. Django's ASGI handler would first spool all of it to disk, before
anybody has looked at who sends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# The largest body that any address takes is an agent's report (2 MiB). Each says 413 in its own words below this.
LIMIT_BYTES = 4 * 2**20
_TEXT = b'{"type": "about:blank", "title": "Content Too Large", "status": 413, "detail": "Nothing was changed."}'


class BodyLimit:
    def __init__(self, app: App, limit_bytes: int = LIMIT_BYTES) -> None:
        self.app, self.limit_bytes = app, limit_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if _announced(scope) > self.limit_bytes:
            await _refuse(send)
            return
        taken, answered = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return {"type": "http.disconnect"} if taken > self.limit_bytes else message

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await self.app(scope, counted, watched)
        if taken > self.limit_bytes and not answered:
            await _refuse(send)


def _announced(scope: Message) -> int:
    for name, value in scope.get("headers", ()):
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": _TEXT})
