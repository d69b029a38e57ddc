"""The stand-in for the vllm program, by what the agent asks of the real one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench import _standins
from tests.e2e.stack import Stack, eventually, free_ports
from tests.workers.control import make_spec
from workers.contract import Device, DeviceKind
from workers.engines import Launch
from workers.engines.vllm import Vllm

SLOT = Device(uuid="CPU-0", index=0, kind=DeviceKind.CPU, name="cpu", memory_bytes=4 * 2**30)


@pytest.fixture
def engine(tmp_path: Path) -> Vllm:
    stack = Stack(tmp_path / "home")
    _standins.settle(stack, "tiny", tmp_path)
    return Vllm(Path(stack.environ["FOREBAY_VLLM"]))


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    spec = make_spec(
        1, gpus=(SLOT.uuid,), model=str(tmp_path / "home" / "models" / "tiny"), engine="vllm", api_key="its-key",
        kv_connector="NixlConnector", served_names=("tiny",), kv_lease_s=30,
    )  # fmt: skip
    port = free_ports(1)[0]
    return Launch(spec, (SLOT,), "127.0.0.1", "127.0.0.1", port, port + 1, cores=1)


@pytest.fixture
def process(engine: Vllm, launch: Launch) -> Iterator[subprocess.Popen[bytes]]:
    command = engine.command(launch)
    with subprocess.Popen(command.argv, env=dict(command.env)) as started:
        yield started
        started.kill()


def test_it_serves_as_the_agent_started_it_and_ends_when_told_to(engine, launch, process):
    url = f"http://127.0.0.1:{launch.port}"
    with httpx.Client(trust_env=False) as client:
        eventually(lambda: engine.is_ready(client, url, launch.spec), within_s=30, what="ready")
        asked = {"model": "tiny", "prompt": "Hello", "max_tokens": 24}
        assert client.post(f"{url}/v1/completions", json=asked).status_code == 401
        reply = client.post(f"{url}/v1/completions", json=asked, headers={"Authorization": "Bearer its-key"})
        assert reply.json()["choices"][0]["text"] == _standins.text("Hello", 24)
        assert engine.sample(client, url).running == 0
    process.terminate()
    assert process.wait(10) == 0


def test_it_says_that_it_is_a_stand_in(engine):
    assert engine.version() == "stand-in"
