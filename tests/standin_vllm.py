"""Stands where the `vllm` program would: takes the command line that the agent gives it and serves the stand-in engine.

For benches and tests of everything around engines. It reads no weights and proves nothing about an engine; its text is
that of tests/toy_model.py, which follows from the prompt alone. Its version is "stand-in", and so it is shown.
It stands behind the agent's guard, as engines do. With --enable-sleep-mode it sleeps and wakes as the simulated engine
does, without a GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections import deque
from functools import partial
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.standin_engine import Connection, Standin
from tests.standin_fabric import Fabric
from tests.standin_words import Behaviour, metrics
from tests.toy_model import Speaking
from workers.engines.guard.forebay_guard import DOOR, SECRET, Rule, why
from workers.engines.simulated_sleep import Sleep

VERSION = "stand-in"
# Of one that sleeps: MiB that it holds awake, and how long falling asleep and each step of waking take.
SLEEP = {"gpu_mb": 300, "sleep_s": 0.2, "wake_s": 0.1, "leaks": False, "wake_fails": False, "dies_asleep": False}
ITL_S = 0.02  # between tokens, so that streams are under way when something happens to their engine


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print(VERSION)
        return
    options, _ = _parser().parse_known_args()  # what else the agent says is for a real engine
    uvloop.run(_serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("folder")
    parser.add_argument("--served-model-name", nargs="+", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--shutdown-timeout", type=float, default=0.0)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    # One secret for all, so that each takes the others' blocks; the name tells two lives at one port apart.
    name, key = f"standin-{options.port}-{os.getpid()}", os.environ.get("VLLM_API_KEY", "")
    act = Behaviour(itl_s=ITL_S, model=Speaking(), context=options.max_model_len)
    kind = Sleepy if options.enable_sleep_mode and os.environ.get("VLLM_SERVER_DEV_MODE") == "1" else Shuttable
    engine = kind(name, key, options.served_model_name[0], Fabric(), act, served=deque(maxlen=1))
    await engine.start(options.port, options.host)
    print(f"stand-in engine on {options.host}:{options.port}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await _finish(engine, options.shutdown_timeout)


class Shuttable(Standin):
    """Has the guard's door."""

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> Standin:
        self.rule = Rule(os.environ.get(SECRET, ""))
        self.server = await asyncio.get_running_loop().create_server(lambda: self.connection(), host, port)
        return self

    def connection(self) -> Connection:
        return Guarded(self)


class Sleepy(Shuttable):
    """Holds memory of its own that stands for a GPU's, and gives it back while it sleeps."""

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> Standin:
        self.sleep = Sleep(argparse.Namespace(**SLEEP))
        return await super().start(port, host)

    def connection(self) -> Connection:
        return Sleeping(self)


class Guarded(Connection):
    async def _answer(self, engine: Standin, act: Behaviour) -> None:
        assert isinstance(engine, Shuttable)
        path = self.path.partition("?")[0]
        if status := engine.rule.refusal(path, self.headers.get("x-forebay-agent", "").encode()):
            self.send_bytes(status, why(status))
        elif path == DOOR:
            self.send_bytes(*engine.rule.turn_door(self.parser.get_method().decode()))
        elif path.startswith("/v1/"):
            engine.rule.inside += 1
            try:
                await self._pass(engine, act)
            finally:
                engine.rule.inside -= 1
        else:
            await self._pass(engine, act)

    async def _pass(self, engine: Standin, act: Behaviour) -> None:
        await super()._answer(engine, act)


class Sleeping(Guarded):
    async def _pass(self, engine: Standin, act: Behaviour) -> None:
        assert isinstance(engine, Sleepy)
        path, _, query = self.path.partition("?")
        if path == "/metrics":
            self.send_bytes(200, metrics(engine.running - 1, engine.ended) + engine.sleep.metrics().encode())
        elif path == "/is_sleeping" or path in Sleep.CALLS:
            await self._turn(engine, path, query)
        else:
            await super()._pass(engine, act)

    async def _turn(self, engine: Sleepy, path: str, query: str) -> None:
        if path == "/sleep":
            engine.rule.asleep = True
        others = argparse.Namespace(running=0)  # what runs was drained: the agent asks for nothing else
        turn = partial(engine.sleep.call, path, query, self.body, others)
        status, value = await asyncio.to_thread(engine.sleep.is_sleeping if path == "/is_sleeping" else turn)
        body = json.dumps(value).encode()
        engine.rule.note(path, status, body)
        self.send_bytes(status, body)


async def _finish(engine: Standin, within_s: float) -> None:
    """As vLLM does: healthy to the end, what runs is finished, what comes in is refused."""
    engine.act.status = 500
    deadline = asyncio.get_running_loop().time() + within_s
    while engine.running and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    await engine.stop()


if __name__ == "__main__":
    main()
