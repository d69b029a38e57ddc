"""The control worker as `make run` and the systemd unit start it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.stack import ROOT, eventually


def test_its_beat_does_not_outlive_a_worker_that_is_killed(valkey: Any, tmp_path: Path) -> None:
    """Another worker brings another beat: the orphan would send everything a second time."""
    environ = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "controlplane.settings", "FOREBAY_HOME": str(tmp_path),
        "FOREBAY_REDIS_URL": valkey.url,
    }  # fmt: skip
    command = [
        sys.executable, "-m", "celery", "-A", "controlplane.celery", "worker", "-B", "-P", "solo", "-Q", "beat-test",
        "-s", str(tmp_path / "schedule"),
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL) as worker:
        beat: list[psutil.Process] = []
        try:
            eventually(lambda: list(tmp_path.glob("schedule*")), within_s=60, what="beat")
            time.sleep(1.0)  # it ties itself right after it has written its schedule
            beat = psutil.Process(worker.pid).children()
            assert len(beat) == 1
            worker.kill()
            worker.wait()
            _, alive = psutil.wait_procs(beat, timeout=15)
            assert alive == []
        finally:
            for process in (worker, *beat):
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.kill()
