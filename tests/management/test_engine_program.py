"""Which vllm program is used, and what people are told when there is none."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pynvml
import pytest

from controlplane.management import bootstrap, engine_program
from controlplane.management.steps import Screen, StepFailed

SCREEN = Screen(io.StringIO())


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)


@pytest.fixture
def nothing_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.usefixtures("two_gpus", "nothing_on_path")
def test_gpus_without_a_vllm_program_say_how_to_install_one() -> None:
    with pytest.raises(StepFailed, match="2 NVIDIA GPU") as refused:
        engine_program.find({}, SCREEN, needed=True)
    assert "FOREBAY_VLLM=" in refused.value.fix
    assert "DEMO=none" in refused.value.fix


@pytest.mark.usefixtures("two_gpus", "nothing_on_path")
def test_an_empty_control_plane_needs_no_program() -> None:
    assert engine_program.find({}, SCREEN, needed=False) is None


@pytest.mark.usefixtures("two_gpus")
def test_the_named_program_is_used_with_the_gpus() -> None:
    found = engine_program.find({"FOREBAY_VLLM": sys.executable}, SCREEN, needed=True)
    assert found == engine_program.EngineProgram(Path(sys.executable), 2)


@pytest.mark.usefixtures("no_driver")
def test_a_named_program_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(StepFailed, match="FOREBAY_VLLM=/no/such/vllm"):
        engine_program.find({"FOREBAY_VLLM": "/no/such/vllm"}, SCREEN, needed=True)


@pytest.mark.usefixtures("no_driver")
def test_without_a_gpu_the_installed_cpu_engine_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ENGINE", tmp_path)
    assert engine_program.find({}, SCREEN, needed=False) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").touch()
    found = engine_program.find({}, SCREEN, needed=False)
    assert found is not None
    assert (found.vllm, found.gpus) == (tmp_path / "bin" / "vllm", 0)


def test_no_driver_means_no_gpu(no_driver: None) -> None:
    assert engine_program.nvidia_gpus() == 0
