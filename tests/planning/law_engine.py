"""An engine whose speed is known: it keeps to laws of prefill and decode, one step after the other, and says nothing of
worth. It takes what a vLLM server takes, as far as measuring asks for it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(eq=False)
class Request:
    prompt: int
    answer: int
    left: int
    tokens: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    given: int = 0


@dataclass
class LawEngine:
    """A step of n prompt tokens takes a + b n ms, and one of B sequences o + u B ms."""

    a: float = 6.0
    b: float = 0.02
    o: float = 4.0
    u: float = 0.5
    context: int = 2048
    kv_blocks: int = 1024
    sequences: int = 4
    key: str = "k"
    status: int = 200
    busy: int = 0  # requests of others
    gather_ms: float = 0.0  # that it waits for more once it has something to do
    asked: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    port: int = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._come = asyncio.Event()
        self._task = asyncio.create_task(self._steps())

    async def stop(self) -> None:
        self._task.cancel()
        await self._runner.cleanup()

    async def _steps(self) -> None:
        while True:
            while not (self.waiting or self.running):
                self._come.clear()
                await self._come.wait()
            if self.gather_ms and not self.running:
                await asyncio.sleep(self.gather_ms / 1e3)
            new = self.waiting[: self.sequences - len(self.running)]
            del self.waiting[: len(new)]
            prompts, decoding = sum(one.prompt for one in new), len(self.running)
            took = (self.a + self.b * prompts if new else 0.0) + (self.o + self.u * decoding if decoding else 0.0)
            await asyncio.sleep(took / 1e3)
            self.running += new
            for one in list(self.running):
                one.given += 1
                one.tokens.put_nowait(one.given)
                if one.given >= one.answer:
                    self.running.remove(one)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "max_model_len": self.context}]})

    async def _metrics(self, request: web.Request) -> web.Response:
        lines = [
            f'vllm:cache_config_info{{block_size="16",engine="0",num_gpu_blocks="{self.kv_blocks}"}} 1.0',
            f'vllm:num_requests_running{{engine="0",model_name="m"}} {float(len(self.running) + self.busy)}',
            f'vllm:num_requests_waiting{{engine="0",model_name="m"}} {float(len(self.waiting))}',
        ]
        return web.Response(text="\n".join(lines) + "\n")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert request.headers["authorization"] == f"Bearer {self.key}"
        assert request.headers["x-request-id"].startswith("warm-")
        self.asked.append(body)
        if self.status != 200:
            return web.json_response({"error": "made to fail"}, status=self.status)
        one = Request(len(body["prompt"]), body["max_tokens"], body["max_tokens"])
        self.waiting.append(one)
        self._come.set()
        if not body.get("stream"):
            while await one.tokens.get() < one.answer:
                pass
            return web.json_response({"choices": [{"text": "x", "finish_reason": "length"}]})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(one.answer):
            event = {"choices": [{"text": "x"}], "usage": {"completion_tokens": await one.tokens.get()}}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response
