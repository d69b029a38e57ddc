"""The measuring program itself, in the engine's Python with the real torch, on this host's processor."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.workers.control import ROOT

VLLM = Path(os.environ.get("FOREBAY_VLLM") or ROOT / ".venv-engine" / "bin" / "vllm")
PYTHON = VLLM.parent / "python"
PROGRAM = [str(PYTHON), "-I", str(ROOT / "workers" / "qualify.py")]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; set FOREBAY_VLLM"),
]


def test_a_cpu_slot_is_measured_and_what_could_not_be_is_named():
    done = subprocess.run(
        [*PROGRAM, "--device", "cpu", "--threads", "1", "--soak", "0.5"], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bf16_tflops"] > 0 and found["fp32_tflops"] > 0 and found["memory_gbs"] > 0.5
    assert found["bf16_tflops"] == max(size["tflops"] for size in found["sizes"])
    assert found["wrong"] == 0 and found["soak"]["mismatches"] == 0 and found["soak"]["checks"] >= 2
    assert found["device"] == "1 threads" and found["missing"] == [] and "to_device_gbs" not in found
    late = subprocess.run(
        [*PROGRAM, "--device", "cpu", "--threads", "1", "--budget", "0"], capture_output=True, text=True, timeout=90
    )
    found = json.loads(late.stdout.splitlines()[-1])
    assert late.returncode == 0 and found["wrong"] == 0
    assert "bf16_rate: out of time" in found["missing"] and "bf16_tflops" not in found


def test_it_says_so_where_there_is_no_gpu_and_ends_with_whoever_started_it():
    done = subprocess.run([*PROGRAM, "--device", "cuda"], capture_output=True, text=True, timeout=90,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert done.returncode == 3 and "torch sees no GPU" in json.loads(done.stdout)["error"]
    tethered = subprocess.Popen([*PROGRAM, "--device", "cpu", "--soak", "60", "--tether"], stdin=subprocess.PIPE,
                                stdout=subprocess.DEVNULL)  # fmt: skip
    time.sleep(1.0)
    tethered.stdin.close()
    assert tethered.wait(20) == 4
