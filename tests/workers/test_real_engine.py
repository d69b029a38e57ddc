"""The real agent with two real vLLM engines on CPU slots: one prefills, one decodes, and the KV really moves.

The tests share the engines, which take a while to start, and run in the order they stand in.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.stack import make_tiny_model
from tests.gateway.collector import ENDPOINT, Collector
from tests.workers.conftest import free_range
from tests.workers.control import ROOT, AgentProcess, Control, alive, control_plane, make_spec, until
from workers.contract import EngineSample, LogWanted, Phase, ReplicaSpec, Role

VLLM = Path(os.environ.get("FOREBAY_VLLM") or ROOT / ".venv-engine" / "bin" / "vllm")
KEY = "engine-key-of-the-test"
START_S = 400.0  # two cores may be busy with other tests

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; set FOREBAY_VLLM"),
]


class Pair:
    """Partition 1 prefills and partition 2 decodes, or the other way round."""

    def __init__(self, agent: AgentProcess, control: Control, model: str, collector: Collector) -> None:
        self.agent, self.control, self.model, self.collector = agent, control, model, collector
        self.slots = [device.uuid for device in control.last.devices]

    def want(self, prefill: int) -> None:
        self.control.want(*(self._spec(p, Role.PREFILL if p == prefill else Role.DECODE) for p in (1, 2)))
        until(self.is_ready, START_S, "both engines ready")

    def is_ready(self) -> bool:
        return all(self.control.is_ready(p) for p in (1, 2))

    def pids(self) -> list[int]:
        return [self.control.replica(p).pid for p in (1, 2)]

    def complete(self, partition: int, prompt: str, **more: Any) -> dict[str, Any]:
        reply = httpx.post(
            f"{self.control.replica(partition).endpoint}/v1/completions",
            json={"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 16} | more,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=60,
        )
        assert reply.status_code == 200, reply.text
        return reply.json()

    def two_steps(self, prefill: int, decode: int, prompt: str) -> str:
        wanted = {"do_remote_decode": True, "do_remote_prefill": False}
        first = self.complete(prefill, prompt, max_tokens=1, kv_transfer_params=wanted)
        answer = self.complete(decode, prompt, kv_transfer_params=first["kv_transfer_params"])
        return answer["choices"][0]["text"]

    def sample(self, partition: int) -> EngineSample:
        """One that was taken from now on."""
        seen = len(self.control.reports)
        until(lambda: len(self.control.reports) > seen + 6)
        found = self.control.replica(partition).sample
        assert found is not None
        return found

    def nursery(self) -> int:
        """The latest of this agent's."""
        return int(re.findall(r"nursery: pid (\d+) imports", self.agent.log())[-1])

    def log_of(self, partition: int) -> str:
        [path] = (self.agent.home / "logs").glob(f"p{partition}-*.log")
        return path.read_text()

    def _spec(self, partition: int, role: Role) -> ReplicaSpec:
        return make_spec(
            partition, role=role, gpus=(self.slots[partition - 1],), engine="vllm", model=self.model,
            served_names=("tiny",), kv_connector="NixlConnector", kv_lease_s=10, api_key=KEY, drain_s=30.0,
        )  # fmt: skip


def sockets(pid: int) -> Path:
    return Path(psutil.Process(pid).environ()["VLLM_RPC_BASE_PATH"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("real")
    model = folder / "tiny"
    make_tiny_model(model, VLLM.with_name("python"))
    with control_plane() as control, closing(Collector()) as collector:
        collector.thread.start()
        agent = AgentProcess(
            folder / "home", control, FOREBAY_VLLM=str(VLLM), FOREBAY_DEVICES="cpu", FOREBAY_CPU_SLOTS="2",
            FOREBAY_ENGINE_PORTS=free_range(), FOREBAY_SIDE_PORTS=free_range(),
            **{ENDPOINT: collector.url, "OTEL_BSP_SCHEDULE_DELAY": "500"},
        )  # fmt: skip
        try:
            agent.join()
            agent.start()
            until(lambda: control.reports)
            found = Pair(agent, control, str(model), collector)
            found.want(prefill=1)
            yield found
        finally:
            agent.end()


def check_kv_moves(pair: Pair, prefill: int, decode: int, word: str) -> None:
    prompt = f"{word} " + "The forebay holds water ready. " * 20
    before = pair.sample(decode)
    text = pair.two_steps(prefill, decode, prompt)
    after = pair.sample(decode)
    tokens = after.prompt_tokens_total - before.prompt_tokens_total
    moved = after.external_kv_tokens_total - before.external_kv_tokens_total
    assert tokens > 100 and moved >= tokens - 1, "the decode engine computed the prompt itself"
    assert after.nixl_bytes_total > before.nixl_bytes_total
    assert after.nixl_failures_total == 0 and pair.sample(prefill).kv_expired_total == 0
    alone = pair.complete(prefill, prompt)["choices"][0]["text"]
    assert text == alone and text, "the answer differs from a single engine's"


def test_kv_moves_from_the_prefill_engine_to_the_decode_engine(pair):
    check_kv_moves(pair, prefill=1, decode=2, word="first")


def test_the_spans_of_both_engines_lie_in_the_trace_that_the_request_names(pair):
    trace, steps = "4bf92f3577b34da6a3ce929d0e0e4736", {1: "00f067aa0ba902b7", 2: "00f067aa0ba902b8"}
    for partition, span in steps.items():
        endpoint = pair.control.replica(partition).endpoint
        headers = {"Authorization": f"Bearer {KEY}", "traceparent": f"00-{trace}-{span}-01"}
        asked = {"model": "tiny", "prompt": "A forebay", "max_tokens": 4}
        httpx.post(f"{endpoint}/v1/completions", json=asked, headers=headers, timeout=60).raise_for_status()

    def found() -> set[str]:
        return {span.parent_span_id.hex() for span in pair.collector.spans() if span.trace_id.hex() == trace}

    until(lambda: found() >= set(steps.values()), 30, "spans of both engines")


def test_what_is_reported_of_them_is_measured(pair):
    replica = pair.control.replica(1)
    assert replica.engine_version == pair.control.last.engine_version != ""
    assert replica.memory_bytes > 300 * 2**20 and replica.ready_after_s > 1
    samples = {sample.uuid: sample for sample in pair.control.last.samples}
    assert samples[pair.slots[0]].memory_used_bytes > 300 * 2**20
    assert samples[pair.slots[0]].utilization is not None
    pair.control.logs = (LogWanted(partition=1),)
    text = until(lambda: pair.control.last.logs and pair.control.last.logs[0].text)
    pair.control.logs = ()
    assert "GET /metrics" not in text and KEY not in text


def test_both_were_forked_from_a_process_that_has_the_engine_imported(pair):
    assert [psutil.Process(pid).ppid() for pid in pair.pids()] == [pair.nursery()] * 2
    assert all("forked from the nursery" in pair.log_of(partition) for partition in (1, 2))


def test_only_who_knows_the_key_gets_an_answer(pair):
    endpoint = pair.control.replica(1).endpoint
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
    for path in ("/v1/completions", "/v1/chat/completions", "/invocations", "/tokenize", "/inference/v1/generate"):
        assert httpx.post(f"{endpoint}{path}", json=body | {"messages": []}).status_code == 401, path
    assert httpx.get(f"{endpoint}/openapi.json").status_code == 401


def test_roles_are_swapped_without_a_new_process_and_kv_moves_the_other_way(pair):
    pids = pair.pids()
    pair.want(prefill=2)
    assert pair.pids() == pids
    check_kv_moves(pair, prefill=2, decode=1, word="swapped")


def test_a_killed_agents_successor_adopts_both_engines(pair):
    pids = pair.pids()
    pair.agent.kill(signal.SIGKILL)
    pair.complete(1, "serving goes on", max_tokens=1)
    pair.control.reports.clear()
    pair.agent.start()
    until(lambda: pair.control.reports and pair.is_ready())
    assert pair.pids() == pids and all(map(alive, pids))
    check_kv_moves(pair, prefill=2, decode=1, word="adopted")


def test_each_has_a_folder_of_its_own_for_its_sockets(pair):
    first, second = (sockets(pid) for pid in pair.pids())
    assert first != second and list(first.iterdir()) and list(second.iterdir())


def test_a_killed_prefill_engine_is_restarted_and_found_again(pair):
    _, pid = pair.pids()
    endpoint = pair.control.replica(2).endpoint
    os.kill(pair.nursery(), signal.SIGKILL)  # so that it is started plainly, beside one that was forked
    os.kill(pid, signal.SIGKILL)
    gone = until(lambda: (r := pair.control.replica(2)) and r.phase == Phase.EXITED and r)
    assert gone.last_exit.log_tail
    until(pair.is_ready, START_S)
    assert pair.control.replica(2).pid != pid and pair.control.replica(2).endpoint == endpoint
    assert pair.control.replica(2).restarts == 1 and "plain start: the nursery ended" in pair.log_of(2)
    check_kv_moves(pair, prefill=2, decode=1, word="again")


def test_both_are_stopped_when_no_longer_wanted(pair):
    pids = pair.pids()
    folders = [sockets(pid) for pid in pids]
    pair.control.want()
    until(lambda: pair.control.last.replicas == (), 120)
    assert not any(map(alive, pids))
    until(lambda: not any(folder.exists() for folder in folders), 45)
