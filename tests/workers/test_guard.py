"""The guard before what vLLM's development mode opens: its rule, and as a real vLLM server has it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.workers.conftest import free_range
from tests.workers.control import make_spec, until
from tests.workers.test_engines import value
from workers.contract import Device, DeviceKind
from workers.engines import Launch, door, sleeping
from workers.engines.guard.forebay_guard import DOOR, SHUT_S, Rule
from workers.engines.vllm import GUARD, Vllm, _guard_env
from workers.ports import parse_range

OPEN = ["/health", "/metrics", "/version", "/v1/completions", "/v1/models"]
SHUT = [
    "/sleep", "/wake_up", "/is_sleeping", "/collective_rpc", "/reset_prefix_cache", "/server_info", "/pause", "/v1",
    "/sleep/", "//sleep", "/v1x/sleep", "/healthx", "/docs", "/openapi.json", "", "/",
]  # fmt: skip


@pytest.mark.parametrize("path", OPEN)
def test_what_everybody_needs_is_open(path):
    assert Rule("secret").refusal(path, b"") == 0


@pytest.mark.parametrize("path", SHUT)
def test_whatever_is_not_known_asks_for_the_secret(path):
    rule = Rule("secret")
    assert [rule.refusal(path, header) for header in (b"", b"secre", b"secret")] == [401, 401, 0]
    assert Rule("").refusal(path, b"") == 401  # without a secret nobody is the agent


def test_from_the_moment_that_it_is_to_sleep_until_it_says_that_it_is_awake_it_serves_nobody():
    rule = Rule("secret")
    rule.note("/sleep", 200, b"{}")
    assert rule.refusal("/v1/completions", b"") == 503 and rule.refusal("/health", b"") == 0
    rule.note("/wake_up", 200, b'{"status": "awake"}')
    assert rule.refusal("/v1/completions", b"") == 503
    rule.note("/is_sleeping", 200, b'{"is_sleeping": true}')
    assert rule.refusal("/v1/completions", b"") == 503
    rule.note("/is_sleeping", 200, b'{"is_sleeping": false}')
    assert rule.refusal("/v1/completions", b"") == 0
    rule.note("/sleep", 500, b"")
    assert rule.refusal("/v1/completions", b"") == 0


def test_a_shut_door_lets_nobody_in_until_it_is_opened_or_the_time_is_over(monkeypatch):
    now = 100.0
    monkeypatch.setattr("workers.engines.guard.forebay_guard.time.monotonic", lambda: now)
    rule = Rule("secret")
    rule.inside = 2
    assert rule.refusal(DOOR, b"") == 401 and rule.refusal(DOOR, b"secret") == 0 and Rule("").refusal(DOOR, b"") == 401
    status, told = rule.turn_door("POST")
    assert (status, json.loads(told)) == (200, {"inside": 2, "shut_s": SHUT_S})
    assert rule.refusal("/v1/completions", b"") == 503 and rule.refusal("/metrics", b"") == 0
    assert rule.turn_door("DELETE")[0] == 200 and rule.refusal("/v1/completions", b"") == 0
    assert rule.turn_door("GET")[0] == 405 and rule.refusal("/v1/completions", b"") == 0
    rule.turn_door("POST")
    now += SHUT_S - 0.01
    assert rule.refusal("/v1/completions", b"") == 503
    now += 0.01
    assert rule.refusal("/v1/completions", b"") == 0


def test_an_engine_on_a_gpu_gets_sleep_mode_and_the_guard_outermost(tmp_path):
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    gpu = Device(uuid="GPU-a", index=0, kind=DeviceKind.NVIDIA, name="H200", memory_bytes=141 * 10**9)
    spec = make_spec(engine="vllm", model="some/model", args=("--middleware", "theirs.Layer"), sleeps=0)
    engine = Vllm(program, {"VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": "/elsewhere"})
    plain = engine.command(Launch(spec, (gpu,), "127.0.0.1", "127.0.0.1", 1, 2, 0))
    assert "VLLM_SERVER_DEV_MODE" not in plain.env and "--enable-sleep-mode" not in plain.argv
    assert value(plain.argv, "--middleware") == "forebay_guard.Guard", "what has no key is shut there too"
    able = engine.command(Launch(spec, (gpu,), "127.0.0.1", "127.0.0.1", 1, 2, 0, secret="s3cret", can_sleep=True))
    layers = [able.argv[i + 1] for i, arg in enumerate(able.argv) if arg == "--middleware"]
    assert layers == ["theirs.Layer", "forebay_guard.Guard"] and "--enable-sleep-mode" in able.argv
    assert able.env["VLLM_SERVER_DEV_MODE"] == "1" and able.env["PYTHONPATH"] == str(GUARD)
    assert "s3cret" not in " ".join(able.argv)


# --- a real vLLM server, on CPU: it takes the calls, and has no memory to give back ----------------------

VLLM = Path(os.environ.get("FOREBAY_VLLM") or Path(__file__).parents[2] / ".venv-engine/bin/vllm")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not VLLM.exists():
        pytest.skip("no vLLM here")
    folder = tmp_path_factory.mktemp("guard")
    model = folder / "model"
    python = VLLM.parent / "python"
    maker = Path(__file__).parents[2] / "workers/engines/cpu/make_tiny_model.py"
    subprocess.run([python, maker, model], check=True, capture_output=True)
    port = parse_range(free_range())[0]
    cpu = Device(uuid="CPU-0", index=0, kind=DeviceKind.CPU, name="slot", memory_bytes=2 * 2**30)
    spec = make_spec(engine="vllm", model=str(model), served_names=("demo",), api_key="engine-key-of-the-test")
    launch = Launch(spec, (cpu,), "127.0.0.1", "127.0.0.1", port, 0, 1)
    command = Vllm(VLLM).command(launch)
    guarded = Launch(spec, (cpu,), "127.0.0.1", "127.0.0.1", port, 0, 1, secret="s3cret", can_sleep=True)
    env = {**command.env, **_guard_env(guarded)}
    argv = command.argv  # --enable-sleep-mode is refused on CPU
    log = (folder / "log").open("wb")
    engine = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd="/", start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 110
        while True:
            try:
                if httpx.get(url + "/health", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline and engine.poll() is None, (folder / "log").read_text()[-3000:]
            time.sleep(0.3)
        yield url
    finally:
        engine.terminate()
        engine.wait(40)
        log.close()


def ask(url: str, tokens: int = 4) -> httpx.Response:
    body = {"model": "demo", "prompt": "Hello", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return httpx.post(
        url + "/v1/completions", json=body, headers={"Authorization": "Bearer engine-key-of-the-test"}, timeout=30
    )


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_a_real_server_lets_the_agent_alone_at_its_development_endpoints(server):
    posts = ["/sleep?level=1", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/pause", "/update_weights"]
    calls = [("POST", path) for path in posts] + [("GET", "/is_sleeping"), ("GET", "/server_info")]
    for method, path in calls:
        for headers in ({}, {"Authorization": "Bearer engine-key-of-the-test"}, {"x-forebay-agent": "guess"}):
            assert httpx.request(method, server + path, headers=headers).status_code == 401, path
    assert httpx.get(server + "/health").status_code == httpx.get(server + "/metrics").status_code == 200
    assert httpx.get(server + "/v1/models").status_code == 401  # vLLM's own, for want of the engine's key
    assert ask(server).status_code == 200
    with httpx.Client() as client:
        assert sleeping.is_sleeping(client, server, "s3cret") is False
        with pytest.raises(sleeping.SleepError, match="401"):
            sleeping.is_sleeping(client, server, "guess")


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.parametrize("level", [1, 2])
def test_a_real_server_takes_the_calls_and_answers_the_same_afterwards(server, level):
    """No memory moves on CPU; states, order, answers and the reading of weights are vLLM's own."""
    before = ask(server).json()["choices"][0]["text"]
    with httpx.Client() as client:
        sleeping.doze(client, server, "s3cret", level)
        assert ask(server).status_code == 503 and httpx.get(server + "/health").status_code == 200
        assert 'sleep_state="awake"' in (told := httpx.get(server + "/metrics").text)
        assert any(line.endswith(" 0.0") for line in told.splitlines() if 'sleep_state="awake"' in line)
        sleeping.doze(client, server, "s3cret", level)  # as an agent does that begins anew
        sleeping.wake(client, server, "s3cret", level)
        assert ask(server).json()["choices"][0]["text"] == before
        sleeping.wake(client, server, "s3cret", level)


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_a_real_server_tells_who_is_inside_when_its_door_is_shut(server):
    """Of requests that come one after the other each is answered or refused, and who was let in is told."""
    assert httpx.post(server + DOOR).status_code == 401
    with httpx.Client() as client, ThreadPoolExecutor(4) as pool:
        long = pool.submit(ask, server, 1500)
        until(lambda: door_shut(client, server), what="the long one inside")
        assert ask(server).status_code == 503, "it is shut"
        assert long.result().status_code == 200, "who was inside is answered"
        assert door.shut(client, server, "s3cret") == door.Shut(0, SHUT_S)
        assert door.open_again(client, server, "s3cret") and ask(server).status_code == 200
        assert door.shut(client, server, "guess") is None and ask(server).status_code == 200


def door_shut(client: httpx.Client, server: str) -> bool:
    """Shut while the long one is inside."""
    found = door.shut(client, server, "s3cret")
    assert found is not None
    if not found.inside:
        door.open_again(client, server, "s3cret")
    return found.inside == 1
