"""Engines that sleep in a slot: the agent's parts put together in this process, stand-in engines as real processes that
answer vLLM's calls for it, and an NVML that counts those processes' memory as the GPU's. No GPU has a part in it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from tests.workers.conftest import free_range
from tests.workers.control import NODE, alive, make_spec
from tests.workers.fake_nvml import FakeGpu, FakeNvml
from workers import processes
from workers.agent import Agent
from workers.book import Book, HeldSpec, clock
from workers.contract import NodeSpec, Phase, ReplicaSpec
from workers.devices.nvml import Nvml
from workers.engines import door
from workers.engines.simulated import Simulated
from workers.logs import Logs
from workers.measuring import Program
from workers.ports import parse_range
from workers.probes import Prober
from workers.qualifying import Qualifier
from workers.sampler import Sampler
from workers.sleepers import Bounds, Sleepers
from workers.starter import Place, Starter
from workers.turns import Turns

HOME = "home-of-the-sleeping-test"
GPU, MIB, GIB = "GPU-a", 2**20, 2**30
KEY = {"Authorization": "Bearer engine-key-of-the-test"}
BODY = {"model": "demo", "prompt": "Hello", "max_tokens": 1}
REST = 64 * MIB  # a stand-in asleep is a bare Python


class CountingNvml(FakeNvml):
    """A GPU holds what the processes hold that were given it."""

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        pids = [one.pid for one in processes.marked(HOME) if gpu.uuid in one.gpus]
        gpu.used = sum(memory for pid in pids if (memory := held(pid)))
        return super().nvmlDeviceGetMemoryInfo(gpu)


def held(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


class Node:
    """One agent on one home; `reboot` ends it as a kill would and begins the next."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self.folder, self.bounds, self.generation = folder, bounds, 0
        self.ports = parse_range(free_range()), parse_range(free_range())
        self.children = processes.Children()
        self.source = Nvml(CountingNvml(FakeGpu(GPU, memory=80 * GIB)))
        self.most_awake = 0
        self.begin()

    def begin(self) -> None:
        for name in ("replicas", "logs"):
            (self.folder / name).mkdir(exist_ok=True)
        self.book, logs = Book(self.folder / "replicas"), Logs(self.folder / "logs")
        engines = {"simulated": Simulated()}
        self.clients = httpx.Client(trust_env=False), httpx.Client(trust_env=False)
        self.prober, self.turns = Prober("127.0.0.1", self.clients[0]), Turns("127.0.0.1", self.clients[1])
        place = Place(HOME, "127.0.0.1", "127.0.0.1", *self.ports)
        starter = Starter(place, engines=engines, source=self.source, book=self.book, logs=logs, children=self.children)
        self.sleepers: Any = ()
        self.sampler = Sampler(self.source, lambda: (*self.book, *self.sleepers), self.prober)
        self.sleepers = Sleepers(
            self.folder / "asleep", self.bounds, self.book, source=self.source, prober=self.prober, turns=self.turns,
            children=self.children, reading=lambda: self.sampler.latest,
        )  # fmt: skip
        starter.may_sleep, starter.asleep = self.sleepers.may_start_able, lambda: tuple(self.sleepers)
        program = Program(self.folder, self.source, lambda: "")
        self.agent = Agent(
            instance=HOME, held=HeldSpec(self.folder / "spec.json", NODE), book=self.book, logs=logs,
            children=self.children, engines=engines, starter=starter, prober=self.prober,
            qualifier=Qualifier(self.folder, program=program, source=self.source, samples=tuple),
            sleepers=self.sleepers,
        )  # fmt: skip
        self.agent.adopt()

    def end(self) -> None:
        for part in (self.prober, self.turns):
            part.close()
            part._pool.shutdown()
        for client in self.clients:
            client.close()

    def reboot(self) -> None:
        self.end()
        self.begin()

    def want(self, awake: ReplicaSpec | None, *asleep: ReplicaSpec) -> None:
        self.generation += 1
        replicas = () if awake is None else (at(awake, self.generation),)
        spec = NodeSpec(node=NODE, generation=self.generation, replicas=replicas, sleepers=asleep)
        assert self.agent.submit(spec)

    def step(self) -> None:
        self.sampler.latest = self.sampler.read(clock())
        self.agent.tick(clock())
        self.most_awake = max(self.most_awake, len(self.awake()))
        time.sleep(0.05)

    def until(self, done: Callable[[], Any], within_s: float = 40.0) -> Any:
        deadline = time.monotonic() + within_s
        while not (found := done()):
            assert time.monotonic() < deadline, (self.agent.view.records, self.report())
            self.step()
        return found

    def awake(self) -> list[str]:
        """Deployments whose engine answers a request, asked one by one behind the agent's back."""
        return [
            r.replica.spec.deployment for r in (*self.book, *self.sleepers) if r.process and answers(r.url("127.0.0.1"))
        ]

    def is_ready(self, deployment: str) -> bool:
        return any(
            r.replica.phase == Phase.READY and r.replica.spec.deployment == deployment for r in self.agent.view.records
        )

    def record(self, deployment: str) -> Any:
        return next(r for r in (*self.book, *self.sleepers) if r.replica.spec.deployment == deployment)

    def report(self) -> Any:
        return self.agent.view.sleep

    def asleep(self) -> dict[str, int]:
        return {one.deployment: one.level for one in self.report().sleepers if not one.leaving}


def at(spec: ReplicaSpec, generation: int) -> ReplicaSpec:
    import msgspec

    return msgspec.structs.replace(spec, generation=generation)


def answers(url: str) -> bool:
    try:
        return httpx.post(url + "/v1/completions", json=BODY, headers=KEY, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def model(name: str, *args: str, **changes: Any) -> ReplicaSpec:
    mb = ("--gpu-mb", "128")
    return make_spec(
        1, gpus=(GPU,), deployment=name, model=f"/models/{name}", args=(*mb, *args), role="aggregated",
        **({"sleeps": 2 * GIB, "drain_s": 1.0} | changes),
    )  # fmt: skip


A, B, C = model("a"), model("b"), model("c")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def node(**bounds: Any) -> Node:
        made.append(Node(tmp_path, Bounds(**({"cap_bytes": 64 * GIB, "rest_bytes": REST} | bounds))))
        return made[-1]

    yield node
    for one in made:
        one.end()
    while strays := processes.marked(HOME):
        processes.kill([stray.pid for stray in strays])
        time.sleep(0.05)
    for one in made:
        for child in one.children._popen.values():
            child.wait(10)


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has memory for whatever the test says: what this one has is not the point."""
    real = psutil.virtual_memory()
    big = SimpleNamespace(total=256 * GIB, available=200 * GIB, used=real.used)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: big)


@pytest.fixture
def node(make: Callable[..., Node], roomy: None) -> Node:
    return make()


def run_both(node: Node, first: ReplicaSpec = A, second: ReplicaSpec = B) -> int:
    """`first` runs, then `second`, for which it goes to sleep; the first one's pid."""
    node.want(first)
    node.until(lambda: node.is_ready(first.deployment))
    pid = node.record(first.deployment).process.pid
    node.want(second, first)
    node.until(lambda: node.is_ready(second.deployment))
    return pid


def test_one_sleeps_while_another_is_awake_and_they_change_places_without_a_start(node):
    pid = run_both(node)
    assert node.asleep() == {"a": 1} and node.awake() == ["b"]
    [told] = node.report().sleepers
    assert (told.pid, told.partition, told.generation) == (pid, 1, 1) and 0 < told.gpu_bytes < REST
    assert told.host_bytes >= 5 * GIB == node.report().held_bytes  # 2 GiB of weights, 3 of the process
    assert node.sampler.latest.samples[0].memory_used_bytes < 128 * MIB + 2 * REST  # the other 128 MiB are given back
    other = node.record("b").process.pid
    node.want(A, B)
    node.until(lambda: node.is_ready("a"))
    assert node.record("a").process.pid == pid and node.record("a").woken_after_s > 0 and alive(other)
    assert node.asleep() == {"b": 1} and node.awake() == ["a"]
    assert node.most_awake == 1


def test_one_that_wakes_has_its_door_opened_which_may_be_shut_yet(node, monkeypatch):
    run_both(node)
    url, opened = next(iter(node.sleepers)).url("127.0.0.1"), []
    monkeypatch.setattr(door, "open_again", lambda client, url, secret: opened.append((url, bool(secret))) or True)
    node.want(A, B)
    node.until(lambda: node.is_ready("a"))
    assert opened == [(url, True)]


def test_of_an_unknown_size_the_weights_are_dropped_and_read_again_on_waking(make, roomy):
    node = make()
    a = model("a", sleeps=0)
    run_both(node, a)
    assert node.asleep() == {"a": 2}
    node.want(a, B)
    node.until(lambda: node.is_ready("a"))
    reply = httpx.post(node.record("a").url("127.0.0.1") + "/v1/completions", json=BODY, headers=KEY)
    assert reply.json()["choices"][0]["text"] == " simulated"  # " nonsense" without its weights


def test_host_memory_decides_how_deeply_it_sleeps(make, roomy):
    node = make(cap_bytes=4 * GIB)  # a process has room, its 2 GiB of weights have not
    run_both(node)
    assert node.asleep() == {"a": 2}


def test_the_longest_asleep_goes_when_host_memory_is_short(make, roomy):
    node = make(cap_bytes=7 * GIB)  # two processes of 3
    a, b, c = (model(name, sleeps=0) for name in "abc")
    pid = run_both(node, a, b)
    node.want(c, a, b)
    node.until(lambda: node.is_ready("c") and node.asleep() == {"a": 2, "b": 2})
    node.want(model("d"), a, b, c)
    node.until(lambda: node.is_ready("d") and node.asleep() == {"b": 2, "c": 2} and not alive(pid))


def test_a_sleeper_goes_where_its_rest_of_the_gpu_is_in_the_way(make, roomy):
    node = make()
    pid = run_both(node)
    greedy = model("c", "--gpu-memory-utilization", "0.9999")
    node.want(greedy, A, B)
    with pytest.raises(AssertionError):  # no such argument: it does not come up, but its place is made
        node.until(lambda: node.is_ready("c"), 3)
    assert not alive(pid) and node.asleep() == {}


def test_only_the_agent_reaches_what_puts_an_engine_to_sleep(node):
    node.want(A)
    node.until(lambda: node.is_ready("a"))
    url, secret = node.record("a").url("127.0.0.1"), node.record("a").secret
    for method, path in (
        ("GET", "/is_sleeping"),
        ("POST", "/sleep?level=1"),
        ("POST", "/wake_up"),
        ("POST", "/collective_rpc"),
    ):
        for headers in ({}, KEY, {"x-forebay-agent": "guess"}):
            assert httpx.request(method, url + path, headers=headers).status_code == 401
        assert answers(url)
    assert httpx.get(url + "/is_sleeping", headers={"x-forebay-agent": secret}).json() == {"is_sleeping": False}
    assert len(secret) > 40 and secret in node.agent.secrets()


def test_an_engine_asleep_refuses_requests(node):
    run_both(node)
    url = node.record("a").url("127.0.0.1")
    assert httpx.post(url + "/v1/completions", json=BODY, headers=KEY).status_code == 503
    assert httpx.get(url + "/health").status_code == 200


def test_an_engine_that_keeps_its_gpu_is_stopped_instead(node):
    pid = run_both(node, model("a", "--leaks"))
    assert node.asleep() == {} and not alive(pid) and node.most_awake == 1


def test_a_gpu_that_does_not_tell_its_memory_lets_nobody_sleep(node, monkeypatch):
    node.want(A)
    node.until(lambda: node.is_ready("a"))
    node.source._nvml.gpus[0].fails["nvmlDeviceGetMemoryInfo"] = 3  # NOT_SUPPORTED
    node.want(B, A)
    node.until(lambda: node.is_ready("b"))
    assert node.asleep() == {}


def test_one_that_does_not_wake_is_started_plainly(node):
    a = model("a", "--wake-fails")
    pid = run_both(node, a)
    node.want(a, B)
    node.until(lambda: node.is_ready("a"))
    record = node.record("a")
    assert record.process.pid != pid and not alive(pid) and record.woken_after_s is None
    assert record.replica.restarts == 0 and node.asleep() == {"b": 1} and node.most_awake == 1


def test_one_that_dies_asleep_is_forgotten(node):
    a = model("a", "--dies-asleep")
    pid = run_both(node, a)
    node.until(lambda: not node.asleep() and not alive(pid))
    node.want(a, B)
    node.until(lambda: node.is_ready("a"))
    assert node.record("a").process.pid != pid


def test_one_that_is_woken_behind_the_agents_back_is_stopped(node):
    pid = run_both(node)
    record = node.record("a")
    httpx.post(record.url("127.0.0.1") + "/wake_up", headers={"x-forebay-agent": record.secret})
    node.until(lambda: not node.asleep() and not alive(pid))
    assert node.is_ready("b")


def test_the_next_agent_adopts_who_sleeps_and_can_wake_them(node):
    pid = run_both(node)
    node.reboot()
    node.step()
    assert node.asleep() == {"a": 1} and alive(pid)
    node.want(A, B)
    node.until(lambda: node.is_ready("a"))
    assert node.record("a").process.pid == pid and node.most_awake == 1


@pytest.mark.parametrize("phase", [Phase.DOZING, Phase.WAKING])
def test_an_agent_that_dies_in_between_is_followed_by_one_that_goes_on(node, phase):
    slow = model("a", "--sleep-s", "0.7", "--wake-s", "0.7")
    node.want(slow)
    node.until(lambda: node.is_ready("a"))
    pid = node.record("a").process.pid
    node.want(B, slow)
    if phase == Phase.WAKING:
        node.until(lambda: node.is_ready("b"))
        node.want(slow, B)
    node.until(lambda: node.record("a").replica.phase == phase)
    node.reboot()
    node.until(lambda: node.is_ready("b" if phase == Phase.DOZING else "a"))
    assert node.record("a").process.pid == pid and node.most_awake == 1


def test_a_release_a_drain_and_a_revocation_put_them_all_away(node):
    run_both(node)
    pids = [node.record(name).process.pid for name in "ab"]
    node.want(None)
    node.until(lambda: not node.report().sleepers and not len(node.book))
    assert not any(alive(pid) for pid in pids)
    run_both(node)
    node.agent.retire()
    node.until(node.agent.finished.is_set)
    assert not processes.marked(HOME)


def test_what_the_spec_no_longer_lists_does_not_stay(node):
    pid = run_both(node)
    node.want(B)
    node.until(lambda: not node.report().sleepers)
    assert not alive(pid) and node.is_ready("b")


def test_an_engine_with_a_kv_connector_or_started_before_never_sleeps(node):
    assert not node.sleepers.may_start_able(model("a", kv_connector="NixlConnector"))
    pid = run_both(node, model("a", sleeps=None))
    assert node.asleep() == {} and not alive(pid)


def test_an_engine_that_ends_leaves_sleepers_alone(node):
    run_both(node)
    os.kill(node.record("b").process.pid, signal.SIGKILL)
    node.until(lambda: not node.is_ready("b"))
    node.until(lambda: node.is_ready("b"))
    assert node.asleep() == {"a": 1}


def test_a_node_without_a_share_of_memory_for_it_says_so(make):
    node = make(cap_bytes=0)
    assert "FOREBAY_SLEEP_CAP" in node.sleepers.why_not((GPU,))
    node.want(A)
    node.until(lambda: node.is_ready("a"))
    assert not node.record("a").replica.can_sleep
