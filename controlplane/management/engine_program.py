"""Which vllm program this machine's agent starts: the one FOREBAY_VLLM names, or the CPU build installed for it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pynvml

from controlplane.management import bootstrap
from controlplane.management.steps import Screen, StepFailed

HOW_TO_INSTALL = """\
install vLLM in an environment of its own and name it:
    python3 -m venv /opt/vllm && /opt/vllm/bin/pip install vllm nixl
    FOREBAY_VLLM=/opt/vllm/bin/vllm make run
or start without a model: make run DEMO=none"""


@dataclass(frozen=True, slots=True)
class EngineProgram:
    vllm: Path
    gpus: int  # 0: it runs on this host's CPU slots

    @property
    def python(self) -> Path:
        """The interpreter of the environment that the program lies in."""
        return self.vllm.parent / "python"


def find(environ: Mapping[str, str], screen: Screen, *, needed: bool) -> EngineProgram | None:
    """The program to use, installed if it can be; None only when there is none and none is `needed`."""
    gpus = nvidia_gpus()
    if named := environ.get("FOREBAY_VLLM"):
        return EngineProgram(_existing(named), gpus)
    if gpus == 0:
        if needed:
            bootstrap.install(screen, bootstrap.engine_environment())
        return _installed_cpu()
    if on_path := shutil.which("vllm"):
        return EngineProgram(Path(on_path), gpus)
    if needed:
        raise StepFailed(f"This machine has {gpus} NVIDIA GPU(s), but no vllm program is named.", fix=HOW_TO_INSTALL)
    return None


def nvidia_gpus() -> int:
    """How many NVIDIA GPUs the driver shows; 0 without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def _installed_cpu() -> EngineProgram | None:
    program = bootstrap.ENGINE / "bin" / "vllm"
    return EngineProgram(program, 0) if program.exists() else None


def _existing(named: str) -> Path:
    found = shutil.which(named)
    if not found:
        raise StepFailed(f"FOREBAY_VLLM={named} is not a program.", fix=HOW_TO_INSTALL)
    return Path(found)
