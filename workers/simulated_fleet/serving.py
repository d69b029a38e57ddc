"""One HTTP server that answers for all simulated engines as vLLM would, so that a gateway can route to them: the key of
a request says which engine is meant. The text is made up and says so; no model runs, and no KV moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from workers.simulated_fleet.load import Engine

WORDS = ("this ", "text ", "is ", "simulated ")
CONTEXT = 1 << 20  # tokens
DEFAULT_TOKENS = 16
LARGEST_BODY = 1 << 24  # bytes
HANDED = {"do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": [[1]], "remote_host": "127.0.0.1",
          "remote_port": 1, "tp_size": 1}  # fmt: skip
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True, slots=True)
class Served:
    """A ready engine, and the name of the model that it answers for."""

    model: str
    engine: Engine


Find = Callable[[str], Served | None]


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Asked(msgspec.Struct):
    """What is looked at of a request's body."""

    prompt: Any = None
    messages: list[Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: _Options | None = None
    kv_transfer_params: dict[str, Any] | None = None

    @property
    def tokens(self) -> int:
        most = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        return min(CONTEXT, max(1, DEFAULT_TOKENS if most is None else most))

    @property
    def prompt_tokens(self) -> int:
        """About as many as a tokenizer makes."""
        said = self.prompt if self.messages is None else self.messages
        text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
        return max(1, len(text) // 4)


_decode = msgspec.json.Decoder(_Asked).decode


async def serve(find: Find, host: str, port: int = 0) -> tuple[asyncio.Server, int]:
    """`find` knows ready engines by their keys. The port is told, as 0 takes any."""
    server = await asyncio.start_server(lambda reader, writer: _Caller(find, reader, writer).run(), host, port)
    return server, int(server.sockets[0].getsockname()[1])


@dataclass
class _Caller:
    """One kept connection; requests are answered one after the other."""

    find: Find
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    path: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        try:
            while await self._one():
                await self.writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass  # whoever called has gone, or speaks no HTTP
        finally:
            self.writer.close()

    async def _one(self) -> bool:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.path = lines[0].split(" ")[1] if lines[0].count(" ") == 2 else ""
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = int(self.fields.get("content-length", "0"))
        if not 0 <= size <= LARGEST_BODY:
            return False
        await self._answer(await self.reader.readexactly(size))
        return True

    async def _answer(self, body: bytes) -> None:
        served = self.find(self.fields.get("authorization", "").removeprefix("Bearer "))
        if served is None:
            self._whole(401, _error("No simulated engine has this key.", 401))
        elif self.path == "/health":
            self._whole(200, {})
        elif self.path == "/v1/models":
            one = {"id": served.model, "object": "model", "owned_by": "simulated", "max_model_len": CONTEXT}
            self._whole(200, {"object": "list", "data": [one]})
        elif self.path in ("/v1/completions", "/v1/chat/completions"):
            await self._generate(served, body)
        else:
            self._whole(404, _error("Not Found", 404))

    async def _generate(self, served: Served, body: bytes) -> None:
        try:
            asked = _decode(body)
        except msgspec.DecodeError as error:
            self._whole(400, _error(str(error), 400))
            return
        engine, began = served.engine, time.monotonic()
        with engine.answering():
            await asyncio.sleep(engine.first_s)
            engine.began(asked.prompt_tokens, time.monotonic() - began)
            hands_over = bool((asked.kv_transfer_params or {}).get("do_remote_decode"))
            if asked.stream and not hands_over:
                await self._stream(served, asked)
                return
            tokens = 1 if hands_over else asked.tokens
            for _ in range(tokens - 1):
                await self._next(engine)
        self._whole(200, self._answered(served, asked, tokens, handed=HANDED if hands_over else None))

    async def _next(self, engine: Engine) -> None:
        took_s = engine.token_s
        await asyncio.sleep(took_s)
        if engine.is_dead:
            raise ConnectionAbortedError
        engine.went_on(took_s)

    async def _stream(self, served: Served, asked: _Asked) -> None:
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number in range(asked.tokens):
            if number:
                await self._next(served.engine)
            is_last = number == asked.tokens - 1
            self._event(served, {"choices": [self._choice(number, "length" if is_last else None)]})
            await self.writer.drain()
        if asked.stream_options and asked.stream_options.include_usage:
            self._event(served, {"choices": [], "usage": _usage(asked, asked.tokens)})
        self.writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _choice(self, number: int, finish: str | None) -> dict[str, Any]:
        text = WORDS[number % len(WORDS)]
        if not self._is_chat:
            return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        delta = {"content": text} if number else {"role": "assistant", "content": text}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _answered(self, served: Served, asked: _Asked, tokens: int, *, handed: object) -> dict[str, Any]:
        text = "".join(WORDS[number % len(WORDS)] for number in range(tokens))
        said = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        return {
            **self._head(served, "chat.completion"),
            "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": "length"}],
            "usage": _usage(asked, tokens),
            "kv_transfer_params": handed,
        }

    @property
    def _is_chat(self) -> bool:
        return self.path.endswith("chat/completions")

    def _head(self, served: Served, chat: str) -> dict[str, Any]:
        kind = chat if self._is_chat else "text_completion"
        return {"id": "simulated", "object": kind, "created": int(time.time()), "model": served.model}

    def _event(self, served: Served, said: dict[str, Any]) -> None:
        body = msgspec.json.encode({**self._head(served, "chat.completion.chunk"), **said})
        self.writer.write(b"%x\r\ndata: %b\n\n\r\n" % (len(body) + 8, body))

    def _whole(self, status: int, said: dict[str, Any]) -> None:
        body = msgspec.json.encode(said)
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.writer.write(f"{head}\r\n\r\n".encode() + body)


def _usage(asked: _Asked, tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": asked.prompt_tokens + tokens,
    }


def _error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}
