"""The gateway's own requests through engines: what a client's would do, short, and told apart by its id.

They prove that the engines answer in their roles, and make a new pair shake hands before a client has to wait for it.
They are no traffic: nothing of them is recorded or counted as demand.
"""

from __future__ import annotations

import asyncio
from os import urandom
from typing import Any, Protocol, TypeVar

import msgspec

from controlplane.gateway.exchange import Exchange, UpstreamError
from controlplane.gateway.failures import CLIENTS_FAULT, is_shut
from controlplane.gateway.openai import PREFILL_PARAMS
from controlplane.gateway.table import Engine
from controlplane.gateway.upstream import Bounds, Pool

T = TypeVar("T")
ID = "warm-"  # what their x-request-id begins with
LIMIT_S = 10.0  # for a whole trial; below the KV lease
_WORDS = ("water", "stands", "ready", "behind", "the", "gate", "until", "a", "turbine", "asks", "for", "it")


class ProbeFailed(Exception):
    """The trial failed; the message is for people, and names the engine."""


class DoorShut(Exception):
    """An engine is about to end, or sleeps: it was not tried."""


class Probing(Protocol):
    """Raises ProbeFailed or DoorShut; returns in bounded time."""

    async def pair(self, prefill: Engine, decode: Engine, model: str, block_tokens: int) -> None: ...

    async def alone(self, engine: Engine, model: str) -> None: ...


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Prefilled(msgspec.Struct):
    kv_transfer_params: msgspec.Raw = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    choices: list[_Choice]


class Prober:
    """Each trial uses connections of its own, so that none of them says anything of those that clients use."""

    def __init__(self, bounds: Bounds, limit_s: float = LIMIT_S) -> None:
        self._bounds, self._limit_s = bounds, limit_s

    async def pair(self, prefill: Engine, decode: Engine, model: str, block_tokens: int) -> None:
        """Prefill on the one, hand the blocks over, decode on the other."""
        id, body = _id(), _body(model, prompt(2 * block_tokens + 2))
        until = asyncio.get_running_loop().time() + self._limit_s
        first = await self._ask(prefill, f"{id}-p", {**body, "kv_transfer_params": PREFILL_PARAMS}, until)
        if first.status != 200:
            _require_taken(prefill, first)
            return  # a request that an engine may refuse, such as one too long for it, says nothing of the pair
        params = _decode(first, prefill, _Prefilled).kv_transfer_params
        handed = {"kv_transfer_params": params} if memoryview(params)[:1] == b"{" else {}
        second = await self._ask(decode, f"{id}-d", body | handed, until)
        if second.status != 200:
            raise ProbeFailed(f"{decode.name} with {prefill.name}: {_said(second)}")
        _require_answer(second, decode)

    async def alone(self, engine: Engine, model: str) -> None:
        """A whole request on one engine."""
        until = asyncio.get_running_loop().time() + self._limit_s
        exchange = await self._ask(engine, _id(), _body(model, prompt(2)), until)
        if exchange.status != 200:
            _require_taken(engine, exchange)
            return
        _require_answer(exchange, engine)

    async def _ask(self, engine: Engine, id: str, body: dict[str, Any], until: float) -> Exchange:
        raw = msgspec.json.encode(body)
        head = b"POST /v1/completions HTTP/1.1\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
            engine.head, id.encode(), len(raw),
        )  # fmt: skip
        pool = Pool(engine.host, engine.port, self._bounds)
        try:
            exchange = await pool.send(head + raw, not_after=until)
            try:
                exchange.deadline(max(0.0, until - pool.loop.time()), "no answer in time")
                await exchange.done
            finally:
                exchange.abort()
        except UpstreamError as error:
            raise ProbeFailed(f"{engine.name}: {error}") from error
        finally:
            pool.close()
        if is_shut(exchange.status, exchange.body):
            raise DoorShut(engine.name)
        return exchange


def prompt(words: int) -> str:
    """A text of at least so many tokens that no engine has in its prefix cache: blocks that decode had already, it
    would not pull."""
    return " ".join([urandom(4).hex(), *(_WORDS[i % len(_WORDS)] for i in range(words))])


def _id() -> str:
    return ID + urandom(6).hex()


def _body(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0, "stream": False}


def _require_taken(engine: Engine, exchange: Exchange) -> None:
    if exchange.status not in CLIENTS_FAULT:
        raise ProbeFailed(f"{engine.name}: {_said(exchange)}")


def _require_answer(exchange: Exchange, engine: Engine) -> None:
    """An engine may say 200 of a generation that failed."""
    choices = _decode(exchange, engine, _Answer).choices
    if not choices or choices[0].finish_reason == "error":
        raise ProbeFailed(f"{engine.name}: its answer is empty or says that it failed")


def _decode(exchange: Exchange, engine: Engine, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(exchange.body, type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProbeFailed(f"{engine.name}: its answer cannot be read: {error}") from error


def _said(exchange: Exchange) -> str:
    return f"it answered {exchange.status}: {exchange.body[:150].decode('utf-8', 'replace')}"
