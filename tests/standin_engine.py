"""A strict protocol stand-in for a vLLM engine: it speaks the two-step protocol and invents the text.

It proves what a router does with the protocol, never what an engine does with a model. It refuses a wrong
key, a prefill body that a real engine could not hand over, and unknown, expired, altered or replayed blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.standin_fabric import Fabric, refusal
from tests.standin_words import Behaviour, error, metrics, usage
from tests.toy_model import Counting, Step, Writer, merged, tokens_of


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Standin:
    """One engine. `served` keeps the last bodies, `aborted` counts clients that went away before the end."""

    name: str = "standin"
    key: str = ""
    model: str = "tiny"
    fabric: Fabric = field(default_factory=Fabric)
    act: Behaviour = field(default_factory=Behaviour)
    served: deque[Seen] = field(default_factory=lambda: deque(maxlen=256))
    aborted: int = 0
    running: int = 0
    ended: int = 0  # requests
    connections: int = 0
    server: asyncio.Server | None = None
    open: set[Connection] = field(default_factory=set)

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> Standin:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), host, port)
        return self

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        for connection in list(self.open):
            connection.transport.abort()

    def bodies(self) -> list[dict[str, Any]]:
        return [seen.body for seen in self.served if seen.body]


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered one after the other."""

    transport: asyncio.Transport

    def __init__(self, engine: Standin) -> None:
        self.engine = engine
        self.parser = httptools.HttpRequestParser(self)
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.engine.open.add(self)
        self.engine.connections += 1

    def connection_lost(self, _: Exception | None) -> None:
        self.engine.open.discard(self)
        self.writable.set()
        if self.task is not None and not self.task.done():
            self.engine.aborted += 1
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.path, self.headers, self.body = "", {}, b""

    def on_url(self, url: bytes) -> None:
        self.path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.answer())

    async def answer(self) -> None:
        engine = self.engine
        engine.running += 1
        try:
            await self._answer(engine, engine.act)
        finally:
            engine.running -= 1
            engine.ended += self.path.startswith("/v1/") and bool(self.body)

    async def _answer(self, engine: Standin, act: Behaviour) -> None:
        body = json.loads(self.body) if self.body else {}
        engine.served.append(Seen(self.path, self.headers, body))
        if act.garbage:
            self.transport.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            self.transport.close()
        elif act.frozen:
            await asyncio.sleep(3600)
        elif self.path == "/health":
            self.send(200, {})
        elif self.path == "/metrics":
            self.send_bytes(200, metrics(engine.running - 1, engine.ended))  # this one is not for the model
        elif engine.key and self.headers.get("authorization") != f"Bearer {engine.key}":
            self.send(401, error("Unauthorized", 401))
        elif act.hang:
            await asyncio.sleep(3600)
        elif act.status:
            self.send_bytes(act.status, act.status_body)
        elif self.path == "/v1/models":
            one = {"id": engine.model, "object": "model", "max_model_len": act.context}
            self.send(200, {"object": "list", "data": [one]})
        elif self.path in {"/v1/completions", "/v1/chat/completions"}:
            await self._generate(body, act)
        else:
            self.send(404, error("Not Found", 404))

    async def _generate(self, body: dict[str, Any], act: Behaviour) -> None:
        prompt = json.dumps(body.get("messages", body.get("prompt")))
        params = body.get("kv_transfer_params") or {}
        if refused := refusal(self.engine.fabric, body, params, prompt):
            self.send(400, error(refused, 400))
            return
        if act.first_s:
            await asyncio.sleep(act.first_s)
        whole = act.context if "messages" in body else 16
        limit = body.get("max_completion_tokens", body.get("max_tokens", whole))
        if limit is None and "messages" not in body:
            self.send(400, error("max_tokens must be told", 400))
            return
        tokens = tokens_of(body.get("messages", body.get("prompt")))
        limit = min(act.context if limit is None else limit, act.context - len(tokens))
        if params.get("do_remote_decode"):
            handed = self.engine.fabric.issue(self.engine.name, prompt) if act.params is ... else act.params
            self.send(200, self._whole(body, prompt, 1, handed, act))
        elif body.get("stream"):
            await self._stream(body, prompt, limit, act)
        else:
            if act.itl_s:
                await asyncio.sleep(act.itl_s * (limit - 1))
            self.send(200, self._whole(body, prompt, limit, None, act))

    def _whole(self, body: dict[str, Any], prompt: str, limit: int, handed: Any, act: Behaviour) -> dict[str, Any]:
        steps = list(self._steps(body, limit, act))
        text = "".join(step.text for step in steps)
        text = (text.lstrip() if isinstance(act.model, Counting) else text) + "x" * act.padding
        tokens, last = len(steps), steps[-1] if steps else Step([], "", "length")
        chat = self.path.endswith("chat/completions")
        choice: dict[str, Any] = {"index": 0, "finish_reason": last.finish, "stop_reason": last.stop}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {
            "id": f"cmpl-{self.engine.name}", "object": "chat.completion" if chat else "text_completion", "created": 1,
            "model": self.engine.model, "choices": [choice], "usage": usage(prompt, tokens),
            "kv_transfer_params": handed,
        }  # fmt: skip

    async def _stream(self, body: dict[str, Any], prompt: str, tokens: int, act: Behaviour) -> None:
        self._write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                    b"transfer-encoding: chunked\r\n\r\n")  # fmt: skip
        loop = asyncio.get_running_loop()
        due, count = loop.time(), 0
        shown = bool(body.get("return_token_ids")) and act.tells_ids
        for number, step in enumerate(merged(self._steps(body, tokens, act), act.merge)):
            if 0 <= act.die_after <= count and act.deaths:
                await self._die(act)
                return
            self._tell(body, step, act, shown=shown, first=number == 0)
            count += len(step.ids)
            if act.itl_s:
                due += act.itl_s
                await asyncio.sleep(max(0.0, due - loop.time()))
            await self.writable.wait()
        if act.die_after == count and act.deaths and act.die_how == "cut":  # all is said but the end
            await self._die(act)
            return
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event({"choices": [], "usage": usage(prompt, count)})
        self._write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _steps(self, body: dict[str, Any], limit: int, act: Behaviour) -> Iterator[Step]:
        stop = body.get("stop") or []
        return Writer(
            act.model,
            tokens_of(body.get("messages", body.get("prompt"))),
            limit,
            [stop] if isinstance(stop, str) else stop,
            bool(body.get("include_stop_str_in_output")),
            body.get("min_tokens") or 0,
            bool(body.get("ignore_eos")),
        ).steps()

    def _tell(self, body: dict[str, Any], step: Step, act: Behaviour, *, shown: bool, first: bool) -> None:
        """As vLLM does: the tokens of the prompt once, at the head of a chat, in the choice of a completion."""
        ids = {"token_ids": step.ids if shown else None}
        asked = tokens_of(body.get("messages", body.get("prompt"))) if shown and first else None
        text = step.text + "x" * act.padding
        end = {"finish_reason": step.finish, "stop_reason": step.stop}
        if "messages" not in body:
            choice = {"index": 0, "text": text, "logprobs": None, **end, "prompt_token_ids": asked, **ids}
            self._event({"choices": [choice]})
            return
        if first:
            role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            self._event({"choices": [role], "prompt_token_ids": asked, "prompt_text": None})
        end = end if step.finish else {"finish_reason": None}
        self._event({"choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, **end, **ids}]})

    async def _die(self, act: Behaviour) -> None:
        act.deaths -= 1
        if act.die_how == "cut":
            self.transport.abort()
        elif act.die_how == "silent":
            await asyncio.sleep(3600)
        elif act.die_how == "early":
            self._write(b"0\r\n\r\n")
        else:
            if act.die_how == "abort":
                ended = {"index": 0, "finish_reason": "abort", "stop_reason": None, "token_ids": []}
                text = {"delta": {"content": "?"}} if self.path.endswith("chat/completions") else {"text": "?"}
                self._event({"choices": [{**ended, **text}]})
            else:
                said = json.dumps(error("EngineCore encountered an issue.", 500)).encode()
                self._write(b"%x\r\ndata: %b\n\n\r\n" % (len(said) + 8, said))
            self._write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _event(self, chunk: dict[str, Any]) -> None:
        kind = "chat.completion.chunk" if self.path.endswith("chat/completions") else "text_completion"
        head = {"id": f"cmpl-{self.engine.name}", "object": kind, "created": 1, "model": self.engine.model}
        event = b"data: " + json.dumps({**head, **chunk}, separators=(",", ":")).encode() + b"\n\n"
        self._write(b"%x\r\n%b\r\n" % (len(event), event))

    def send(self, status: int, body: dict[str, Any]) -> None:
        self.send_bytes(status, json.dumps(body, separators=(",", ":")).encode())

    def send_bytes(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._write(head.encode() + body)
        if self.engine.act.close:
            self.transport.close()

    def _write(self, data: bytes) -> None:
        if not (size := self.engine.act.split):
            self.transport.write(data)
            return
        for start in range(0, len(data), size):
            self.transport.write(data[start : start + size])


async def _serve(options: argparse.Namespace) -> None:
    act = Behaviour(first_s=options.first_ms / 1e3, itl_s=options.itl_ms / 1e3)
    engine = Standin(options.name, options.key, options.model, Fabric(options.secret), act)
    engine.served = deque(maxlen=1)
    await engine.start(options.port)
    print(engine.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--port", type=int, default=0)
    flags.add_argument("--name", default="standin")
    flags.add_argument("--key", default="")
    flags.add_argument("--model", default="tiny")
    flags.add_argument("--secret", default="standin")
    flags.add_argument("--first-ms", type=float, default=0.0)
    flags.add_argument("--itl-ms", type=float, default=0.0)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(flags.parse_args()))
