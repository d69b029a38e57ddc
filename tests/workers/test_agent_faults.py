"""One replica's trouble is that replica's alone: the others are looked after and the view goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.workers.conftest import free_range
from tests.workers.control import NODE, make_spec
from workers import processes
from workers.agent import Agent
from workers.book import Book, HeldSpec, clock
from workers.contract import DeviceKind, NodeSpec, Phase, ReplicaSpec
from workers.devices.simulated import SimulatedDevices
from workers.engines.simulated import Simulated
from workers.logs import Log, Logs
from workers.measuring import Program
from workers.ports import parse_range
from workers.probes import Prober
from workers.qualifying import Qualifier
from workers.starter import Place, Starter

HOME = "home-of-the-fault-test"


class Hostile(Simulated):
    """Stands for a model folder that makes the command line's builder stumble."""

    def command(self, launch):
        raise OverflowError("cannot convert float infinity to integer")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    for name in ("replicas", "logs"):
        (tmp_path / name).mkdir()
    book, logs, children = Book(tmp_path / "replicas"), Logs(tmp_path / "logs"), processes.Children()
    engines = {"simulated": Simulated(), "hostile": Hostile()}
    place = Place(HOME, "127.0.0.1", "127.0.0.1", parse_range(free_range()), parse_range(free_range()))
    source, client = SimulatedDevices(4, "n1"), httpx.Client(trust_env=False)
    prober = Prober("127.0.0.1", client)
    starter = Starter(place, engines=engines, source=source, book=book, logs=logs, children=children)
    made = Agent(
        instance=HOME, held=HeldSpec(tmp_path / "spec.json", NODE), book=book, logs=logs, children=children,
        engines=engines, starter=starter, prober=prober,
        qualifier=Qualifier(tmp_path, program=Program(tmp_path, source, lambda: ""), source=source, samples=tuple),
    )  # fmt: skip
    yield made
    while strays := processes.marked(HOME):
        processes.kill([stray.pid for stray in strays])
        time.sleep(0.05)
        for stray in strays:
            children.forget(stray.pid)
    prober.close()
    prober._pool.shutdown()
    client.close()


def want(agent: Agent, *replicas: ReplicaSpec) -> None:
    assert agent.submit(NodeSpec(node=NODE, generation=agent.view.generation + 1, replicas=replicas))


def phases(agent: Agent) -> dict[int, Phase]:
    return {record.partition: record.replica.phase for record in agent.view.records}


def tick_until_ready(agent: Agent, partition: int) -> None:
    deadline = time.monotonic() + 60
    while phases(agent).get(partition) != Phase.READY:
        assert time.monotonic() < deadline, phases(agent)
        agent.tick(clock())
        time.sleep(0.1)


def test_an_engine_that_cannot_be_commanded_is_told_and_holds_up_nobody(agent):
    want(agent, make_spec(1, engine="hostile"), make_spec(2))
    tick_until_ready(agent, 2)
    [bad] = [record for record in agent.view.records if record.partition == 1]
    assert bad.replica.phase == Phase.EXITED and "infinity" in bad.message


def test_a_record_that_cannot_be_written_holds_up_nobody(agent, monkeypatch):
    """As on a full disk."""
    put = Book.put

    def refuse_the_first(book, record):
        if record.partition == 1:
            raise OSError(28, "No space left on device")
        return put(book, record)

    monkeypatch.setattr(Book, "put", refuse_the_first)
    want(agent, make_spec(1), make_spec(2))
    tick_until_ready(agent, 2)


def test_a_log_that_cannot_be_rotated_holds_up_nobody(agent, monkeypatch):
    def fail(*_args, **_more):
        raise OSError(28, "No space left on device")

    want(agent, make_spec(1))
    agent.tick(clock())
    monkeypatch.setattr(Log, "rotate", fail)
    tick_until_ready(agent, 1)


@pytest.mark.parametrize(
    ("kind", "traces", "code"),
    [
        (DeviceKind.CPU, "", -signal.SIGKILL),
        (DeviceKind.CPU, "http://127.0.0.1:9", 0),  # spans that it has not sent yet
        (DeviceKind.SIMULATED, "", 0),
    ],
)
def test_an_idle_engine_is_killed_only_where_that_leaves_nothing_behind(agent, caplog, monkeypatch, kind, traces, code):
    devices = tuple(msgspec.structs.replace(device, kind=kind) for device in SimulatedDevices(4, "n1").devices())
    monkeypatch.setattr(SimulatedDevices, "devices", lambda _: devices)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces)
    want(agent, make_spec(1))
    tick_until_ready(agent, 1)
    want(agent)
    deadline = time.monotonic() + 60
    while phases(agent):
        assert time.monotonic() < deadline, phases(agent)
        agent.tick(clock())
        time.sleep(0.05)
    assert f"p1 ended: {int(code)}" in caplog.text
