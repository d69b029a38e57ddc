"""Clients that stream completions all the time and compare each text with what an undisturbed engine would say."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

WORDS = [
    "water", "pool", "turbine", "gate", "river", "valve", "stone", "light", "engine", "signal", "north", "seven",
    "paper", "cloud", "bridge", "winter",
]  # fmt: skip


def prompts(count: int) -> list[str]:
    """Different ones, longer than a KV block of 32 tokens, so that there is something to transfer."""
    return [" ".join(WORDS[(n * 7 + k * (n + 3)) % len(WORDS)] for k in range(48)) + f" {n}" for n in range(count)]


@dataclass(slots=True)
class Tally:
    """What became of the requests. `wrong`: the text is not the reference text."""

    requests: int = 0
    failed: int = 0
    wrong: int = 0
    continued: int = 0
    why: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0

    def note(self, why: str) -> None:
        self.failed += 1
        self.why[why[:160]] = self.why.get(why[:160], 0) + 1

    def since(self, before: Tally) -> tuple[int, int, int]:
        return self.requests - before.requests, self.failed - before.failed, self.wrong - before.wrong

    def copy(self) -> Tally:
        return Tally(self.requests, self.failed, self.wrong, self.continued, dict(self.why), self.slowest_s)


class Streams:
    """`clients` of them, each with one request of `tokens` at a time and a pause between two, until `stop`: a steady
    load, below what the engines can take."""

    def __init__(
        self,
        url: str,
        key: str,
        model: str,
        *,
        clients: int = 8,
        count: int = 40,
        tokens: int = 24,
        pause_s: float = 1.0,
    ) -> None:
        self.tally = Tally()
        self._url, self._model, self._clients = f"{url}/v1/completions", model, clients
        self._headers = {"Authorization": f"Bearer {key}"}
        self._tokens, self._pause_s = tokens, pause_s
        self._prompts, self._texts = prompts(count), {}
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def learn(self, session: aiohttp.ClientSession) -> None:
        """The reference texts: each prompt asked alone, twice over, and the same both times."""
        for prompt in self._prompts:
            one, other = [await self._ask(session, prompt) for _ in range(2)]
            if one != other:
                raise SystemExit(
                    f"an undisturbed engine says two things of {prompt[:40]!r}: no reference to compare with"
                )
            self._texts[prompt] = one

    def know(self, text: Callable[[str, int], str]) -> None:
        """The reference texts of engines whose `text` of a prompt and a number of tokens is known beforehand."""
        self._texts = {prompt: text(prompt, self._tokens) for prompt in self._prompts}

    def start(self, session: aiohttp.ClientSession) -> None:
        self._tasks = [asyncio.create_task(self._run(session, place)) for place in range(self._clients)]

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until(self, enough: Callable[[Tally], bool], *, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not enough(self.tally) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    async def _run(self, session: aiohttp.ClientSession, place: int) -> None:
        turn = place
        while not self._stopping:
            prompt = self._prompts[turn % len(self._prompts)]
            turn += self._clients + 1
            began = time.monotonic()
            try:
                text = await self._ask(session, prompt)
            except (aiohttp.ClientError, TimeoutError, RuntimeError) as error:
                self.tally.note(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.05)
            else:
                if text != self._texts[prompt]:
                    self.tally.wrong += 1
                    self.tally.why[f"wrong: {text[:60]!r}"] = self.tally.why.get(f"wrong: {text[:60]!r}", 0) + 1
            self.tally.requests += 1
            self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - began)
            await asyncio.sleep(self._pause_s)

    async def _ask(self, session: aiohttp.ClientSession, prompt: str) -> str:
        """The whole streamed text; RuntimeError for anything but a stream that ends as it should."""
        body = {"model": self._model, "prompt": prompt, "max_tokens": self._tokens, "temperature": 0, "stream": True}
        text, finished, done = "", "", False
        async with session.post(self._url, json=body, headers=self._headers) as reply:
            if reply.status != 200:
                raise RuntimeError(f"HTTP {reply.status}: {(await reply.text())[:120]}")
            async for line in reply.content:
                if line.startswith(b": ") and b"continued" in line:
                    self.tally.continued += 1
                if not line.startswith(b"data: "):
                    continue
                data = line[6:].strip()
                if data == b"[DONE]":
                    done = True
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise RuntimeError(f"error event: {event['error'].get('message')}")
                for choice in event["choices"]:
                    text += choice["text"]
                    finished = choice["finish_reason"] or finished
        if not done or not finished:
            raise RuntimeError("the stream ended early")
        return text
