"""Makes the Python environments of a checkout. Standard library only: the system's Python runs it first.

usage: python3 -m controlplane.management.bootstrap run|dev|engine
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from controlplane.management.steps import Screen, Step, StepFailed

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / ".venv"
ENGINE = ROOT / ".venv-engine"
OLDEST_PYTHON = (3, 11)
# Python compiles what is used when it is first used; compiling all 20,000 files took as long as unpacking them.
PIP = ("install", "-q", "--disable-pip-version-check", "--no-compile")

CPU_TORCH = (
    "if pip found no torch of the version +cpu, point it at a place that has PyTorch's CPU builds "
    "(PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS) and run again"
)


def main_environment(screen: Screen, *, dev: bool = False) -> Path:
    """The control plane's environment; its python."""
    name = "requirements-dev.txt" if dev else "requirements.txt"
    return install(
        screen, MAIN, ROOT / name, title="Install the control plane" + (" and its test tools" if dev else "")
    )


def engine_environment(screen: Screen) -> Path:
    """The CPU engine's environment; its python. --no-deps: the resolver would bring CUDA builds along."""
    return install(
        screen,
        ENGINE,
        ROOT / "requirements-engine-cpu.txt",
        "--no-deps",
        title="Install the CPU engine (2.7 GB, once)",
        fix=CPU_TORCH,
    )


def install(screen: Screen, venv: Path, requirements: Path, *options: str, title: str, fix: str = "") -> Path:
    """Install once: a stamp named after the requirements' hash says that it was done."""
    python = venv / "bin" / "python"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    stamp = venv / f".installed-{requirements.stem}-{digest}"
    if stamp.exists() and python.exists():
        return python
    with screen.step(title) as step:
        if not python.exists():
            _make_venv(venv, step)
        log = venv / "install.log"
        _run_pip([python, "-m", "pip", *PIP, *options, "-r", requirements], venv, log, step, fix)
        stamp.touch()
        step.note("")
    return python


def _make_venv(venv: Path, step: Step) -> None:
    step.note("making the environment")
    done = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(
            f"Python could not make an environment in {venv}:\n{(done.stdout + done.stderr).strip()}",
            fix="on Debian: apt-get install python3-venv",
        )


def _run_pip(command: list[str | Path], venv: Path, log: Path, step: Step, fix: str) -> None:
    with log.open("wb") as out:
        pip = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)
        try:
            while pip.poll() is None:
                step.note(f"{_packages(venv)} packages")
                time.sleep(0.5)
        except BaseException:
            pip.terminate()
            pip.wait()
            raise
    if pip.returncode:
        raise StepFailed("pip could not install it.", fix=fix or "read the lines above; then run it again", log=log)


def _packages(venv: Path) -> int:
    return sum(1 for _ in venv.glob("lib/python3*/site-packages/*.dist-info"))


def main(wanted: str) -> int:
    screen = Screen()
    if sys.version_info < OLDEST_PYTHON:
        screen.say(
            f"Forebay needs Python 3.11 or newer; this is {sys.version.split()[0]}. Name another: make PYTHON=..."
        )
        return 1
    try:
        if wanted == "engine":
            engine_environment(screen)
        else:
            main_environment(screen, dev=wanted == "dev")
    except StepFailed as error:
        screen.failed(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "run"))
