"""Takes the times of one running engine, asked as the gateway would: what a step of prefill takes, and the time between
tokens of sequences that decode together.

Prompts are random token ids, so that no prefix cache knows them. A batch of prompts is sent while the engine is busy
with a short one: it then begins them together, and its step lasts from the end of the short one to the end of the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Any, TypeVar

import msgspec

from controlplane.domain.sweep import DecodeTry, PrefillTry
from controlplane.gateway.exchange import Exchange, UpstreamError
from controlplane.gateway.table import Engine
from controlplane.gateway.upstream import Bounds, Pool

T = TypeVar("T")
LIMIT_S = 180.0  # for one try
IDLE_S = 3.0  # that is waited for others' requests to end
LEAST_STEPS = 8
APART = 0.25  # of the short prompt's time, request and answer included, that a batch of more tokens takes at least
TURNS = 3  # that a batch is sent, until the engine begins it apart from the short prompt before it
SHORT = 16  # tokens
IDS = range(100, 250)  # every vocabulary has them, and none of the special ones is among them
ID = "warm-profile"  # as all of the gateway's own requests begin, so that they are told apart
_KV = re.compile(rb"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_BUSY = re.compile(rb"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(rb'(block_size|num_gpu_blocks)="(\d+)"')


class MeterFailed(Exception):
    """The engine cannot be measured; the message is for people, and names it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """`concurrency`: that really ran together; fewer than were asked for where the engine takes no more."""

    concurrency: int
    context: int
    itl_ms: float


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    usage: _Usage | None = None


class _Model(msgspec.Struct):
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


@dataclass(slots=True)
class _Stream:
    """When how many tokens of one answer were there."""

    marks: list[tuple[float, int]] = field(default_factory=list)
    rest: bytes = b""

    def take(self, at: float, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                usage = msgspec.json.decode(line[6:], type=_Event).usage
                if usage and usage.completion_tokens > (self.marks[-1][1] if self.marks else 0):
                    self.marks.append((at, usage.completion_tokens))

    def at(self, moment: float) -> int:
        return next((tokens for at, tokens in reversed(self.marks) if at <= moment), 0)


class Meter:
    """One engine, within a running event loop. Its methods raise MeterFailed."""

    def __init__(self, engine: Engine, model: str, idle_s: float = IDLE_S) -> None:
        self._engine, self._model, self._random = engine, model, SystemRandom()
        self._pool = Pool(engine.host, engine.port, Bounds(idle_s=3.0, max_idle=512, answer_bytes=64 << 20))
        self._loop = asyncio.get_running_loop()
        self._sent, self._idle_s = 0, idle_s

    def close(self) -> None:
        self._pool.close()

    async def context(self) -> int:
        """Tokens of one request, at most."""
        exchange = await self._get("/v1/models")
        try:
            models = msgspec.json.decode(exchange.body, type=_Models).data
        except msgspec.DecodeError as error:
            raise MeterFailed(f"{self._engine.name}: its models cannot be read: {error}") from error
        if not models or not models[0].max_model_len:
            raise MeterFailed(f"{self._engine.name} does not say how many tokens its model takes")
        return models[0].max_model_len

    async def kv_tokens(self) -> int | None:
        """Tokens of KV that it has room for; None where it does not say."""
        found = _KV.search((await self._get("/metrics")).body)
        labels = dict(_LABEL.findall(found[1])) if found else {}
        return int(labels[b"block_size"]) * int(labels[b"num_gpu_blocks"]) if len(labels) == 2 else None

    async def is_idle(self) -> bool:
        """Whether requests of others are done, which is waited for a moment."""
        until = self._loop.time() + self._idle_s
        while True:
            busy = _BUSY.findall((await self._get("/metrics")).body)
            if not any(float(value) > 0 for value in busy):
                return True
            if self._loop.time() > until:
                return False
            await asyncio.sleep(0.1)

    async def prefill(self, one: PrefillTry) -> float | None:
        """Milliseconds of a step. None: the engine did not take the batch apart from the short prompt before it."""
        for _ in range(TURNS):
            asks = [self._whole(one.prompt) for _ in range(one.batch)]
            began = self._loop.time()
            if one.batch == 1:
                return 1e3 * (await self._ended(asks[0]) - began)
            first = asyncio.create_task(self._ended(self._whole(SHORT)))
            await asyncio.sleep(0)  # it goes out before the others
            ended = await _all([self._ended(ask) for ask in asks])
            middle = await first
            # What ends with the short prompt was in its step, and its own time is not known.
            if max(ended) - middle >= APART * (middle - began):
                return 1e3 * (max(ended) - middle)
        return None

    async def decode(self, one: DecodeTry) -> Decoded | None:
        """None where they were not together for long enough to tell."""
        streams = [_Stream() for _ in range(one.concurrency)]
        asks = [self._streamed(one) for _ in streams]
        await _all([self._follow(ask, stream) for ask, stream in zip(asks, streams, strict=True)])
        begun = sorted(stream.marks[0][0] for stream in streams if stream.marks)
        if len(begun) < one.concurrency:
            raise MeterFailed(f"{self._engine.name} gave no token to {one.concurrency - len(begun)} requests")
        end = min(stream.marks[-1][0] for stream in streams)
        together = [stream for stream in streams if stream.marks[0][0] < end]
        begin = max(stream.marks[0][0] for stream in together)
        gained = [stream.at(end) - stream.at(begin) for stream in together]
        if min(gained) < LEAST_STEPS:
            return None
        steps = sum(gained) / len(gained)
        middle = sum(stream.at((begin + end) / 2) for stream in together) / len(together)
        return Decoded(len(together), round(one.context + middle), 1e3 * (end - begin) / steps)

    def _whole(self, tokens: int) -> bytes:
        """A prompt, and one token of answer."""
        return self._request({"prompt": self._prompt(tokens), "max_tokens": 1})

    def _streamed(self, one: DecodeTry) -> bytes:
        told = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        return self._request(
            {"prompt": self._prompt(one.context), "max_tokens": one.answer, "ignore_eos": True, **told}
        )  # fmt: skip

    def _prompt(self, tokens: int) -> Sequence[int]:
        return self._random.choices(IDS, k=tokens)

    def _request(self, body: dict[str, Any]) -> bytes:
        """Made before the clock is read: a long prompt takes a while to write."""
        raw = msgspec.json.encode({"model": self._model, "temperature": 0, **body})
        self._sent += 1
        head = b"POST /v1/completions HTTP/1.1\r\n%bx-request-id: %b-%d\r\ncontent-length: %d\r\n\r\n" % (
            self._engine.head, ID.encode(), self._sent, len(raw),
        )  # fmt: skip
        return head + raw

    async def _ended(self, request: bytes) -> float:
        """When the answer was there."""
        await self._done(await self._send(request))
        return self._loop.time()

    async def _follow(self, request: bytes, stream: _Stream) -> None:
        exchange = await self._send(request)
        with contextlib.suppress(UpstreamError):  # `done` tells of it
            if await exchange.head == 200:
                exchange.attach(lambda data: stream.take(self._loop.time(), data))
        await self._done(exchange)

    async def _get(self, path: str) -> Exchange:
        exchange = await self._send(b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), self._engine.head))
        await self._done(exchange)
        return exchange

    async def _send(self, request: bytes) -> Exchange:
        try:
            exchange = await self._pool.send(request)
        except UpstreamError as error:
            raise MeterFailed(f"{self._engine.name}: {error}") from error
        exchange.deadline(LIMIT_S, "no answer in time")
        return exchange

    async def _done(self, exchange: Exchange) -> None:
        try:
            await exchange.done
        except UpstreamError as error:
            raise MeterFailed(f"{self._engine.name}: {error}") from error
        finally:
            exchange.abort()
        if exchange.status != 200:
            said = exchange.body[:150].decode("utf-8", "replace")
            raise MeterFailed(f"{self._engine.name}: it answered {exchange.status}: {said}")


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Together; the first that fails ends the others."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
