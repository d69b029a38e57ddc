"""Stands where the `vllm` program would: takes the command line that the agent gives it and serves the stand-in engine.

For benches and tests of everything around engines. It reads no weights and proves nothing about an engine; its text is
that of tests/toy_model.py, which follows from the prompt alone. Its version is "stand-in", and so it is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections import deque
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.standin_engine import Behaviour, Fabric, Standin
from tests.toy_model import Speaking

VERSION = "stand-in"
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
    return parser


async def _serve(options: argparse.Namespace) -> None:
    # One secret for all, so that each takes the others' blocks; the name tells two lives at one port apart.
    name, key = f"standin-{options.port}-{os.getpid()}", os.environ.get("VLLM_API_KEY", "")
    act = Behaviour(itl_s=ITL_S, model=Speaking(), context=options.max_model_len)
    engine = Standin(name, key, options.served_model_name[0], Fabric(), act, served=deque(maxlen=1))
    await engine.start(options.port, options.host)
    print(f"stand-in engine on {options.host}:{options.port}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await _finish(engine, options.shutdown_timeout)


async def _finish(engine: Standin, within_s: float) -> None:
    """As vLLM does: healthy to the end, what runs is finished, what comes in is refused."""
    engine.act.status = 500
    deadline = asyncio.get_running_loop().time() + within_s
    while engine.running and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    await engine.stop()


if __name__ == "__main__":
    main()
