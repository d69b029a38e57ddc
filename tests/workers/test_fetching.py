"""Agents fetch weights ahead of their use: with the real client of the engine's Python, from a stand-in for the hub."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.standin_hub import StandinHub, standin_hub
from tests.workers.control import ROOT, AgentProcess, Control, alive, make_spec, until
from workers.store.hub import Cannot, File, chosen
from workers.store.places import Places
from workers.weights import FetchState, FetchWanted, Weights, WeightsState

VLLM = Path(os.environ.get("FOREBAY_VLLM") or ROOT / ".venv-engine" / "bin" / "vllm")
needs_engine = pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; set FOREBAY_VLLM")
CLIENT_WRITES = 10_000_000  # bytes at a time, or a little more
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def hub() -> Iterator[StandinHub]:
    with standin_hub() as hub:
        yield hub


class Program:
    """The fetching program, as an agent starts it."""

    def __init__(self, hub: StandinHub, cache: Path) -> None:
        self.cache, self._popen = cache, None
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
            "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": "hf_secret",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        argv = [str(VLLM.parent / "python"), "-I", str(ROOT / "workers" / "store" / "hub.py")]
        argv += ["--cache", str(self.cache), *arguments]
        return subprocess.Popen(
            argv, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        with self.start(*arguments) as child:
            _pipe(child.stdin).write(b"go\n")
            _pipe(child.stdin).flush()
            return [json.loads(line) for line in _pipe(child.stdout)]

    def held(self) -> dict[str, Weights]:
        return {one.source: one for one in Places((), self.cache).look((), {}).models}


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


@pytest.fixture
def program(hub: StandinHub, tmp_path: Path) -> Program:
    return Program(hub, tmp_path / "hub")


@needs_engine
def test_a_model_comes_whole_in_the_form_that_an_engine_reads(hub: StandinHub, program: Program) -> None:
    total = hub.add("org/m")
    said = program.run("org/m")
    assert said[0]["total_bytes"] == total and said[-1] == {"done": True}
    held = program.held()["org/m"]
    assert held.state == WeightsState.COMPLETE and held.revisions == (hub.commit("org/m"), "main")
    names = {path.name for path in program.cache.glob("models--org--m/snapshots/*/*")}
    assert "tokenizer.json" in names and not names & {"pytorch_model.bin", "picture.png"}
    for path in program.cache.glob("models--org--m/snapshots/*/*"):
        assert path.read_bytes() == hub.repositories["org/m"][path.name]
    assert hub.tokens["127.0.0.1"] == {"Bearer hf_secret"} and hub.tokens["localhost"] == {""}


@needs_engine
def test_a_damaged_file_is_never_seen_and_told(hub: StandinHub, program: Program) -> None:
    hub.add("org/m")
    hub.damaged.add("model-00002-of-00002.safetensors")
    said = program.run("org/m")[-1]
    assert said["error"].startswith("model-00002-of-00002.safetensors is not what the hub says it is")
    assert program.held()["org/m"].state == WeightsState.PARTIAL and "main" not in program.held()["org/m"].revisions
    assert not list(program.cache.glob("**/*.incomplete"))
    hub.damaged.clear()
    sent = hub.served[SHARD]
    assert program.run("org/m")[-1] == {"done": True}
    assert program.held()["org/m"].state == WeightsState.COMPLETE and hub.served[SHARD] == sent


@needs_engine
def test_a_file_that_was_damaged_on_the_disk_is_fetched_anew(hub: StandinHub, program: Program) -> None:
    hub.add("org/m")
    program.run("org/m")
    [shard] = program.cache.glob(f"models--org--m/snapshots/*/{SHARD}")
    with shard.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    assert program.run("org/m")[-1] == {"done": True}
    assert shard.read_bytes() == hub.repositories["org/m"][SHARD]


@needs_engine
def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_from(hub: StandinHub, program: Program) -> None:
    hub.add("org/m", shards=1, size=40_000_000)
    name, hub.bytes_s = "model-00001-of-00001.safetensors", 20_000_000
    with program.start("org/m") as child:
        _pipe(child.stdin).write(b"go\n")
        _pipe(child.stdin).flush()
        until(lambda: hub.served.get(name, 0) > 25_000_000)
        child.kill()
    hub.bytes_s = float("inf")
    time.sleep(0.2)  # until the stand-in has seen that nobody listens
    [part] = program.cache.glob("**/*.incomplete")
    there, hub.served[name] = part.stat().st_size, 0
    assert there >= CLIENT_WRITES
    plan, *_, end = program.run("org/m")
    assert end == {"done": True} and plan["left_bytes"] < plan["total_bytes"] - CLIENT_WRITES
    assert hub.served[name] == len(hub.repositories["org/m"][name]) - there
    assert program.held()["org/m"].state == WeightsState.COMPLETE


@needs_engine
def test_it_waits_for_a_word_and_ends_with_whoever_started_it(hub: StandinHub, program: Program) -> None:
    hub.add("org/m")
    child = program.start("org/m")
    assert json.loads(_pipe(child.stdout).readline())["left_bytes"] > 0
    assert SHARD not in hub.served
    _pipe(child.stdin).close()
    assert child.wait(10) == 4
    _pipe(child.stdout).close()


@needs_engine
def test_what_is_removed_leaves_the_other_revision_whole(hub: StandinHub, program: Program) -> None:
    hub.add("org/m")
    old = hub.commit("org/m")
    program.run("org/m")
    hub.repositories["org/m"]["config.json"] = b'{"model_type": "llama", "newer": true}'
    assert program.run("org/m")[-1] == {"done": True}
    assert program.run(f"--remove={old}", "org/m") == [{"done": True}]
    held = program.held()["org/m"]
    assert held.state == WeightsState.COMPLETE and held.revisions == (hub.commit("org/m"), "main")
    assert program.run(f"--remove={hub.commit('org/m')}", "org/m") == [{"done": True}]
    assert not (program.cache / "models--org--m").exists()


@needs_engine
def test_a_repository_that_is_not_there_is_told(hub: StandinHub, program: Program) -> None:
    [said] = program.run("org/none")
    assert "404" in said["error"] or "not found" in said["error"].lower()


def test_of_weights_one_form_is_chosen() -> None:
    def names(*files: str, indexed: tuple[str, ...] = ()) -> list[str]:
        return [file.name for file in chosen([File(name, 10, "0" * 40) for name in files], indexed)]

    assert names("b.safetensors", "a.bin", "config.json", "x.onnx") == ["config.json", "b.safetensors"]
    assert names("a.bin", "training_args.bin", "b.pt") == ["a.bin"]
    assert names("a.safetensors", "z.safetensors", "consolidated.safetensors", indexed=("a.safetensors",)) == [
        "a.safetensors", "consolidated.safetensors",
    ]  # fmt: skip
    with pytest.raises(Cannot, match="no weights"):
        names("config.json", "m.gguf")
    with pytest.raises(Cannot, match=r"b\.safetensors is missing"):
        names("a.safetensors", indexed=("a.safetensors", "b.safetensors"))


# --- the agent as a whole ---------------------------------------------------------------------------------


@pytest.fixture
def fetching(hub: StandinHub, new_agent: Callable[..., AgentProcess], tmp_path: Path) -> Callable[..., AgentProcess]:
    def make(**environ: str) -> AgentProcess:
        places = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        agent = new_agent(**({"FOREBAY_VLLM": str(VLLM), "FOREBAY_MODELS_FREE": "0"} | places | environ))
        agent.join()
        return agent

    return make


def told(control: Control, source: str) -> Weights | None:
    lists = [report.weights for report in control.reports if report.weights]
    return next((one for one in lists[-1].models if one.source == source), None) if lists else None


def is_there(control: Control, source: str) -> bool:
    one = told(control, source)
    return one is not None and one.state == WeightsState.COMPLETE and "main" in one.revisions


def standing(control: Control, source: str) -> Any:
    fetch = control.last.fetch if control.reports else None
    return next((one for one in fetch.fetches if one.source == source), None) if fetch else None


@needs_engine
def test_an_agent_fetches_what_its_spec_wants_and_tells_how_far_it_is(
    control: Control, hub: StandinHub, fetching: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    total = hub.add("org/m", size=40_000_000)
    hub.bytes_s = 20_000_000
    agent = fetching()
    control.want(fetch=(FetchWanted(source="org/m"), FetchWanted(source="/models/x")))
    agent.start()
    seen = until(lambda: (one := standing(control, "org/m")) and 0 < one.bytes < total and one)
    assert seen.state == FetchState.FETCHING and seen.total_bytes == total
    hub.bytes_s = float("inf")
    until(lambda: is_there(control, "org/m") and told(control, "org/m").checked_at, what="there, and checked")
    until(lambda: standing(control, "org/m") is None, what="nothing more to tell of it")
    failed = until(lambda: (one := standing(control, "/models/x")) and one.state == FetchState.FAILED and one)
    assert failed.message == "it is a folder: there is nothing to fetch"
    [shard] = tmp_path.glob(f"hf/hub/models--org--m/snapshots/*/{SHARD}")
    shard.resolve().unlink()
    until(lambda: not is_there(control, "org/m"), what="seen to be gone")
    until(lambda: is_there(control, "org/m"), 45, what="fetched again, without a failure in between")
    told_bytes = {one.bytes for report in control.reports if report.fetch for one in report.fetch.fetches}
    assert len(told_bytes) <= 6, "bytes are told seldom"
    assert "Traceback" not in agent.log()


@needs_engine
def test_the_least_recently_used_makes_room_and_what_is_in_use_never(
    control: Control, hub: StandinHub, fetching: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    each = max(hub.add(f"org/{name}") for name in ("used", "old", "new", "more"))
    agent = fetching(FOREBAY_MODELS_CAP=str(3 * each + 1000))
    control.want(make_spec(1, model="org/used"), fetch=(FetchWanted(source="org/used"),))
    agent.start()
    until(lambda: is_there(control, "org/used") and control.is_ready(1))
    for name in ("old", "new"):
        control.want(make_spec(1, model="org/used"), fetch=(FetchWanted(source=f"org/{name}"),))
        until(lambda name=name: is_there(control, f"org/{name}"))
    control.want(make_spec(1, model="org/used"), fetch=(FetchWanted(source="org/more"),))
    until(lambda: is_there(control, "org/more"))
    until(lambda: told(control, "org/old") is None, what="the least recently used one is gone")
    assert is_there(control, "org/used") and is_there(control, "org/new")
    hub.add("org/huge", size=10 * each)
    control.want(make_spec(1, model="org/used"), fetch=(FetchWanted(source="org/huge"),))
    failed = until(lambda: (one := standing(control, "org/huge")) and one.state == FetchState.FAILED and one)
    assert failed.message.startswith("no room: it needs ") and "above the cap" in failed.message
    assert all(is_there(control, f"org/{name}") for name in ("used", "new", "more")), "nothing goes in vain"


@needs_engine
def test_fetching_ends_with_the_agent_and_with_what_is_wanted_and_goes_on(
    control: Control, hub: StandinHub, fetching: Callable[..., AgentProcess]
) -> None:
    hub.add("org/m", shards=1, size=80_000_000)
    hub.bytes_s, name = 10_000_000, "model-00001-of-00001.safetensors"
    agent = fetching()
    control.want(fetch=(FetchWanted(source="org/m"),))
    agent.start()
    until(lambda: hub.served.get(name, 0) > 2 * CLIENT_WRITES)
    child = int(agent.log().rpartition("fetching org/m: pid ")[2].split()[0])
    assert os.getpriority(os.PRIO_PROCESS, child) >= 15
    agent.kill()
    until(lambda: not alive(child), 10, what="the program ends with its agent")
    agent.start()
    until(
        lambda: (one := standing(control, "org/m")) and one.state == FetchState.FETCHING and one.bytes >= CLIENT_WRITES
    )
    control.want()
    until(lambda: "is given up: it is no longer wanted" in agent.log())
    hub.bytes_s = float("inf")
    control.want(fetch=(FetchWanted(source="org/m"),))
    until(lambda: is_there(control, "org/m"))


def test_a_node_without_a_network_or_an_engine_says_so(
    control: Control, hub: StandinHub, fetching: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    hub.add("org/m")
    control.want(fetch=(FetchWanted(source="org/m"),))
    agent = fetching(HF_HUB_OFFLINE="1")
    agent.start()
    failed = until(lambda: (one := standing(control, "org/m")) and one.state == FetchState.FAILED and one)
    assert failed.message == control.last.fetch.why_not == "HF_HUB_OFFLINE is set on this node: nothing is fetched"
    assert not hub.asked
