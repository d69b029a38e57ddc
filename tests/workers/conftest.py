from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workers.control import AgentProcess, Control, control_plane
from workers.ports import is_free


def free_range(count: int = 20) -> str:
    """A stretch of ports that nobody uses, outside the range from which the kernel gives out its own."""
    for _ in range(200):
        first = random.randrange(20000, 32000)
        if all(is_free(port, "127.0.0.1") for port in range(first, first + count)):
            return f"{first}-{first + count - 1}"
    raise AssertionError("no free ports")


@pytest.fixture
def control() -> Iterator[Control]:
    with control_plane() as plane:
        yield plane


@pytest.fixture
def new_agent(tmp_path: Path, control: Control) -> Iterator[Callable[..., AgentProcess]]:
    """Makes agents with simulated devices; ends them and their engines after the test."""
    made: list[AgentProcess] = []

    def make(name: str = "agent", **environ: str) -> AgentProcess:
        home = tmp_path / name / "home"
        home.parent.mkdir()
        ports = {"FOREBAY_ENGINE_PORTS": free_range(), "FOREBAY_SIDE_PORTS": free_range()}
        agent = AgentProcess(home, control, **({"FOREBAY_DEVICES": "simulated:4"} | ports | environ))
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.end()


@pytest.fixture
def agent(new_agent: Callable[..., AgentProcess]) -> AgentProcess:
    joined = new_agent()
    joined.join()
    return joined


@pytest.fixture(autouse=True)
def no_forebay_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("FOREBAY_") and n != "FOREBAY_VLLM"]:
        monkeypatch.delenv(name)
