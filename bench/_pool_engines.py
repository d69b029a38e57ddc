"""Stand-in engines behind real sockets: each has a port of its own, answers as vLLM's completions do, and takes the
time that the trace says, by the loop's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from workers.simulated_fleet.load import Engine

SHORT_S = 0.05  # a request that says nothing of how long it takes: a gateway's own
UNTIL = "until "  # what a prompt begins with that says when the answer is to be there, unix s
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


@dataclass(frozen=True, slots=True)
class Serving:
    """An engine that takes requests now."""

    key: str
    model: str
    engine: Engine


Find = Callable[[int], Serving | None]  # by partition


class _Asked(msgspec.Struct):
    model: str
    prompt: str = ""


_decode = msgspec.json.Decoder(_Asked).decode


@dataclass(slots=True)
class Engines:
    """`ports` by partition. What must not happen is counted: `refused`, requests where no engine serves; `strayed`, for
    another model; `broken`, cut off since their engine ended; and `left`, whose caller hung up."""

    find: Find
    least_s: float  # that an answer takes
    ports: dict[int, int] = field(default_factory=dict)
    answered: int = 0
    probes: int = 0
    refused: int = 0
    strayed: int = 0
    broken: int = 0
    left: int = 0
    open: int = 0  # connections
    _servers: list[asyncio.Server] = field(default_factory=list)

    async def listen(self, partition: int) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Caller(self, partition), "127.0.0.1", 0)
        self._servers.append(server)
        self.ports[partition] = server.sockets[0].getsockname()[1]

    def close(self) -> None:
        for server in self._servers:
            server.close()


class _Caller(asyncio.Protocol):
    """One connection; one request at a time, as the gateway sends them."""

    transport: asyncio.Transport

    def __init__(self, site: Engines, partition: int) -> None:
        self._site, self._partition = site, partition
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None
        self._busy: Serving | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._site.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._site.open -= 1
        if self._busy is not None:
            self._busy.engine.in_flight -= 1
            self._site.left += 1
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = int(fields.get("content-length", "0"))
        if len(rest) < size:
            return
        self._data = rest[size:]
        self._take(lines[0].split(" ")[1], fields.get("authorization", ""), rest[:size])

    def _take(self, path: str, authorization: str, body: bytes) -> None:
        serving = self._site.find(self._partition)
        if serving is None or authorization != f"Bearer {serving.key}":
            self._site.refused += 1
            self.transport.abort()
            return
        if path != "/v1/completions":
            self._send(b"{}")
            return
        asked = _decode(body)
        self._site.strayed += asked.model != serving.model
        takes_s = SHORT_S
        if is_client := asked.prompt.startswith(UNTIL):
            takes_s = max(self._site.least_s, float(asked.prompt[len(UNTIL) :]) - self._loop.time())
        self._busy = serving
        serving.engine.in_flight += 1
        self._timer = self._loop.call_later(takes_s, self._answer, asked.model, is_client)

    def _answer(self, model: str, is_client: bool) -> None:
        serving, self._busy, self._timer = self._busy, None, None
        assert serving is not None
        serving.engine.in_flight -= 1
        now = self._site.find(self._partition)
        if now is None or now.engine is not serving.engine:
            self._site.broken += 1
            self.transport.abort()
            return
        self._site.answered += is_client
        self._site.probes += not is_client
        choice = {"index": 0, "text": " simulated", "finish_reason": "length"}
        usage = {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
        self._send(msgspec.json.encode({"id": "simulated", "object": "text_completion", "model": model,
                                        "choices": [choice], "usage": usage}))  # fmt: skip

    def _send(self, body: bytes) -> None:
        self.transport.write(HEAD % (len(body), body))
