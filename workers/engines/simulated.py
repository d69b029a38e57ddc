"""A stand-in engine for tests of scale and of faults: a small HTTP server of its own, labelled as what it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from workers.contract import EngineSample, ReplicaSpec
from workers.engines import Command, Launch, openai

SERVER = Path(__file__).parent / "simulated_server.py"


class Simulated:
    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def version(self) -> str:
        return "simulated"

    def command(self, launch: Launch) -> Command:
        spec = launch.spec
        argv = [
            # No site-packages: hundreds of them start on one machine.
            sys.executable, "-I", "-S", str(SERVER), *spec.args,
            "--host", launch.host, "--port", str(launch.port), "--served-model-name", *spec.served_names,
        ]  # fmt: skip
        env = {name: self._environ[name] for name in ("PATH", "LANG", "TZ") if name in self._environ}
        if launch.can_sleep:
            argv.append("--enable-sleep-mode")
            env["VLLM_SERVER_DEV_MODE"] = "1"
        if launch.secret:
            env["FOREBAY_GUARD_SECRET"] = launch.secret
        return Command(tuple(argv), env | ({"VLLM_API_KEY": spec.api_key} if spec.api_key else {}))

    def is_ready(self, client: httpx.Client, url: str, spec: ReplicaSpec) -> bool:
        return openai.is_ready(client, url, spec)

    def sample(self, client: httpx.Client, url: str) -> EngineSample | None:
        return openai.sample(client, url)
