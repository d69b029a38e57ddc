"""Starting, killing, adopting, stopping: nothing is left behind, and nothing is started twice."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import httpx
import psutil

from tests.e2e.stack import ROOT, Stack, eventually


def test_a_second_supervisor_in_one_home_is_refused(stack: Stack) -> None:
    second = subprocess.run(
        [sys.executable, "manage.py", "up"], cwd=ROOT, env=stack.environ, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "already runs from" in second.stdout
    stack.wait_serving(30)


def test_secrets_in_the_home_are_for_their_owner_alone(stack: Stack) -> None:
    for path in ("api_key", "secret_key", "valkey/password", "valkey/users.acl", "agent/agent.json"):
        assert stat.S_IMODE((stack.home / path).stat().st_mode) == 0o600, path
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700


def test_engines_outlive_a_killed_supervisor_and_are_adopted_by_the_next(stack: Stack) -> None:
    engines = stack.engine_pids()
    assert stack.process is not None
    parts = psutil.Process(stack.process.pid).children(recursive=True)
    parts = [part for part in parts if not belongs_to_engine(part, engines)]
    assert len(parts) >= 5

    stack.kill()

    _, alive = psutil.wait_procs(parts, timeout=30)
    assert alive == []
    assert stack.engine_pids() == engines
    seconds = stack.up(within_s=90)
    assert stack.engine_pids() == engines
    assert "shown this once" not in stack.said.read_text()
    stack.wait_serving(30)
    print(f"up again with adopted engines in {seconds:.1f} s")


def test_with_another_address_engines_are_started_anew_there(stack: Stack) -> None:
    before = stack.engine_pids()
    stack.kill()

    stack.environ["FOREBAY_HOST"] = "127.0.0.2"
    moved = {name: getattr(stack, name).replace("127.0.0.1", "127.0.0.2") for name in ("web", "gateway")}
    was = {name: getattr(stack, name) for name in moved}
    try:
        vars(stack).update(moved)
        stack.up()
        stack.wait_serving(60)
        assert set(stack.engine_pids()) == set(before)
        assert not set(stack.engine_pids().values()) & set(before.values())
        assert {p["endpoint"].rpartition(":")[0] for p in stack.partitions()} == {"http://127.0.0.2"}
        assert [node["address"] for node in stack.rest("GET", "/nodes")["results"]] == ["127.0.0.2"]
    finally:
        if stack.process is not None and stack.process.poll() is None:
            stack.down()
        stack.environ.pop("FOREBAY_HOST")
        vars(stack).update(was)
    stack.up()
    stack.wait_serving(60)


def test_a_stop_leaves_nothing_running(stack: Stack) -> None:
    """The last word of this file: afterwards everything is started anew for whoever comes next."""
    engines = [psutil.Process(pid) for pid in stack.engine_pids().values()]
    assert stack.process is not None
    parts = psutil.Process(stack.process.pid).children(recursive=True)

    stack.down()

    _, alive = psutil.wait_procs([*engines, *parts], timeout=5)
    assert alive == []
    try:
        httpx.get(stack.web, timeout=2)
    except httpx.ConnectError:
        pass
    else:
        raise AssertionError("the web process still answers")
    stack.up()
    eventually(lambda: len(stack.engine_pids()) == 2, within_s=10, what="both engines again")
    stack.wait_serving(30)


def belongs_to_engine(process: psutil.Process, engines: dict[int, int]) -> bool:
    try:
        return os.getsid(process.pid) in engines.values()
    except ProcessLookupError:
        return False
