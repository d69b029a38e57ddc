"""ASGI middleware for every engine: what vLLM's key does not guard is shut, or for the agent alone.

vLLM 0.32 asks for its key below /v1 and the like only: /invocations answers prompts to whoever reaches the port, and
with VLLM_SERVER_DEV_MODE=1 so do /sleep, /wake_up, /collective_rpc and more. Here whatever is neither known to be for
everybody nor guarded by that key asks for the agent's secret. While the engine sleeps it refuses requests, which would
hang otherwise. Before an engine goes, its agent shuts the door: for a moment it refuses requests, and says how many are
inside. Standard library only: it is imported by the engine, in the engine's own Python, and by the stand-in engine.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

HEADER = b"x-forebay-agent"
SECRET = "FOREBAY_GUARD_SECRET"  # noqa: S105 - the variable's name
OPEN = frozenset({"/health", "/ping", "/version", "/load", "/metrics", "/metrics/"})
SERVED = "/v1/"
TOLD_BY = "/is_sleeping"
DOOR = "/forebay/door"  # POST shuts it, DELETE opens it
SHUT_S = 2.0  # it opens by itself: an agent that dies meanwhile leaves no engine that serves nobody

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Rule:
    """Whom to let in. Without a secret nobody is the agent."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self.asleep = False
        self.inside = 0  # requests that have passed and are not answered yet
        self._shut_until = 0.0

    def turn_door(self, method: str) -> tuple[int, bytes]:
        """What the agent asks for, and the answer: how many requests are inside, and for how many seconds no other
        one comes in. From then on it is exact: who is not inside is refused."""
        if method not in ("POST", "DELETE"):
            return 405, why(405)
        shut_s = SHUT_S if method == "POST" else 0.0
        self._shut_until = time.monotonic() + shut_s
        return 200, json.dumps({"inside": self.inside, "shut_s": shut_s}).encode()

    def refusal(self, path: str, header: bytes) -> int:
        """An HTTP status, 0 where the request may pass."""
        if path in OPEN:
            return 0
        if path.startswith(SERVED):
            return 503 if self.asleep or time.monotonic() < self._shut_until else 0
        known = bool(self._secret) and hmac.compare_digest(header, self._secret)
        return 0 if known else 401

    def note(self, path: str, status: int, body: bytes) -> None:
        """What the engine answered the agent. Asleep from the moment on that it was told to be, and until it says that
        it is not: between the two it serves nobody."""
        if path == "/sleep":
            self.asleep = status == 200
        elif path == TOLD_BY and status == 200:
            try:
                self.asleep = bool(json.loads(body)["is_sleeping"])
            except (ValueError, KeyError, TypeError):
                return


def why(status: int) -> bytes:
    texts = {503: "this engine sleeps, or is about to end", 405: "POST shuts the door, DELETE opens it"}
    text = texts.get(status, "only the node's agent may ask for this, if anybody")
    return json.dumps({"error": {"message": text, "type": "forebay_guard", "code": status}}).encode()


class Guard:
    """vLLM adds it with --middleware."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app, self._rule = app, Rule(os.environ.get(SECRET, ""))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # What the router looks at: a path below the root path that the server was given, if it was given one.
        path = str(scope["path"]).removeprefix(str(scope.get("root_path") or ""))
        if status := self._rule.refusal(path, _header(scope.get("headers") or ())):
            await _refuse(scope, send, status)
        elif path == DOOR:
            await _answer(send, *self._rule.turn_door(str(scope.get("method"))))
        elif path == "/sleep":
            self._rule.asleep = True  # from now on, not from its answer on
            await self._app(scope, receive, self._listening(path, send))
        elif path == TOLD_BY:
            await self._app(scope, receive, self._listening(path, send))
        elif path.startswith(SERVED):
            self._rule.inside += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._rule.inside -= 1
        else:
            await self._app(scope, receive, send)

    def _listening(self, path: str, send: Send) -> Send:
        said: list[bytes] = []
        status = 0

        async def passing_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            elif message["type"] == "http.response.body":
                said.append(bytes(message.get("body", b""))[:4096])
                if not message.get("more_body"):
                    self._rule.note(path, status, b"".join(said))
            await send(message)

        return passing_on


def _header(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return next((value for name, value in headers if name.lower() == HEADER), b"")


async def _refuse(scope: Scope, send: Send, status: int) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await _answer(send, status, why(status))


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
