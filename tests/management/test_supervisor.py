"""Parts are started, told about, started again, and never outlive the supervisor."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.management import supervisor as module
from controlplane.management.steps import Screen, Step, StepFailed
from controlplane.management.supervisor import Part, Supervisor

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def eventually(check: Callable[[], bool], within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.05)
    return False


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervisor(told: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(told.append)
    yield made
    made.hurry = True
    made.stop_all()


def test_a_part_that_dies_is_told_and_started_again(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    part = Part("sleeper", SLEEP, tmp_path / "sleeper.log")
    supervisor.start(part)
    assert eventually(lambda: part.log.read_text() == "up\n")
    first = part.pid

    os.kill(first, signal.SIGKILL)

    assert eventually(lambda: part.pid != first and part.is_running)
    assert any("sleeper ended (killed by SIGKILL); starting it again in 1 s" in line for line in told)
    assert any(line.strip() == "up" for line in told), "its last log lines"
    assert any("started again" in line for line in told)


def test_each_quick_end_waits_longer_before_the_next_start(supervisor: Supervisor, tmp_path: Path) -> None:
    part = Part("broken", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "broken.log")
    supervisor.start(part)
    assert eventually(lambda: part.failures == 2)
    assert part.again_at is not None
    assert part.again_at - time.monotonic() > 1.0


def test_a_part_that_says_a_restart_is_of_no_use_is_left_alone(
    supervisor: Supervisor, told: list[str], tmp_path: Path
) -> None:
    part = Part(
        "revoked", [sys.executable, "-c", "raise SystemExit(78)"], tmp_path / "revoked.log", final=frozenset({78})
    )
    supervisor.start(part)
    assert eventually(lambda: not part.wanted)
    assert part.starts == 1
    assert any("revoked ended (exit code 78); it will not be started again" in line for line in told)


def test_a_part_that_ends_while_starting_fails_the_step_with_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    part = Part("broken", [sys.executable, "-c", "print('no such key'); raise SystemExit(3)"], tmp_path / "broken.log")
    supervisor.start(part)
    with pytest.raises(StepFailed, match="broken ended while starting") as failed:
        supervisor.wait_ready(part, lambda: False, Step("start"))
    out = io.StringIO()
    Screen(out).failed(failed.value)
    assert "no such key" in out.getvalue()


def test_stopping_ends_what_the_part_started_too(supervisor: Supervisor, tmp_path: Path) -> None:
    parent = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    part = Part("parent", [sys.executable, "-c", parent], tmp_path / "parent.log")
    supervisor.start(part)
    assert eventually(lambda: part.log.read_text().strip().isdigit())
    child = int(part.log.read_text())

    supervisor.stop(part)

    assert not part.is_running
    assert eventually(lambda: is_gone(child))


def test_a_part_that_ignores_the_request_is_killed_after_its_grace(supervisor: Supervisor, tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    part = Part("deaf", [sys.executable, "-c", deaf], tmp_path / "deaf.log", grace_s=0.5)
    supervisor.start(part)
    assert eventually(lambda: part.log.read_text() == "up\n")
    supervisor.stop(part)
    assert part.process is not None
    assert part.process.returncode == -signal.SIGKILL


def test_no_part_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from controlplane.management.supervisor import Part, Supervisor
part = Part("sleeper", {SLEEP!r}, Path({str(tmp_path / "sleeper.log")!r}))
Supervisor(print).start(part)
print(part.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
        assert eventually(lambda: (tmp_path / "sleeper.log").read_text() == "up\n")
        killed.kill()
    assert eventually(lambda: is_gone(pid))


def test_a_tether_whose_parent_is_already_gone_starts_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    done = subprocess.run(
        [sys.executable, str(module.tether.__file__), "1", "touch", str(mark)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert not mark.exists()


def test_a_large_log_is_emptied_and_one_older_copy_kept(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with log.open("ab") as still_open:
        still_open.write(b"x" * (module.LOG_BYTES + 1))
        still_open.flush()
        module.rotate(log)
        still_open.write(b"next\n")
    assert log.read_bytes() == b"next\n"
    assert (tmp_path / "web.log.1").stat().st_size == module.LOG_BYTES + 1
