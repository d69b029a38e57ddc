"""How an engine's process is started."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from workers.processes import Children


@pytest.mark.parametrize("nice", [0, 5])
def test_an_engine_and_what_it_starts_run_as_far_below_the_agent_as_asked(tmp_path: Path, nice: int) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(30)'])"
    children = Children()
    process = children.start([sys.executable, "-c", script], {}, tmp_path / "log", nice=nice)
    leader = psutil.Process(process.pid)
    try:
        deadline = time.monotonic() + 30
        while not leader.children() and time.monotonic() < deadline:
            time.sleep(0.05)
        own = psutil.Process().nice()
        assert [leader.nice(), *(child.nice() for child in leader.children())] == [own + nice] * 2
    finally:
        for one in [*leader.children(), leader]:
            one.kill()
        while children.exit_code(process.pid) is None:
            time.sleep(0.02)
