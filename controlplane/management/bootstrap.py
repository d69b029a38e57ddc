"""Makes the Python environments of a checkout. Standard library only: the system's Python runs it first.

usage: python3 -m controlplane.management.bootstrap run|dev|engine|test
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from controlplane.management.steps import Screen, StepFailed

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / ".venv"
ENGINE = ROOT / ".venv-engine"
OLDEST_PYTHON = (3, 11)
# Python compiles what is used when it is first used; compiling all 20,000 files took as long as unpacking them.
PIP = ("install", "-q", "--disable-pip-version-check", "--no-compile")
# Signs of an NVIDIA driver, for a guess before anything is installed. `manage.py up` then asks the driver itself.
DRIVER_SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")

CPU_TORCH = (
    "if pip found no torch of the version +cpu, point it at a place that has PyTorch's CPU builds "
    "(PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS) and run again"
)


class Installation:
    """One environment and what is installed in it, once: a stamp named after the requirements' hash says it was."""

    def __init__(self, venv: Path, requirements: Path, *options: str, title: str, fix: str = "") -> None:
        self.python = venv / "bin" / "python"
        self._venv, self._requirements, self._options = venv, requirements, options
        self._title, self._fix = title, fix
        self._log = venv / "install.log"
        self._stamp = venv / f".installed-{requirements.stem}-{_digest(requirements)}"
        self._pip: subprocess.Popen[bytes] | None = None

    @property
    def is_done(self) -> bool:
        return self._stamp.exists() and self.python.exists()

    def begin(self) -> None:
        """Let pip work; `finish` waits for it."""
        if self.is_done:
            return
        if not self.python.exists():
            _make_venv(self._venv)
        command = [self.python, "-m", "pip", *PIP, *self._options, "-r", self._requirements]
        with self._log.open("wb") as out:
            self._pip = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)

    def finish(self, screen: Screen) -> Path:
        """The environment's python."""
        if self._pip is None:
            return self.python
        with screen.step(self._title) as step:
            while self._pip.poll() is None:
                step.note(f"{_packages(self._venv)} packages")
                time.sleep(0.2)
            if self._pip.returncode:
                fix = self._fix or "read the lines above; then run it again"
                raise StepFailed("pip could not install it.", fix=fix, log=self._log)
            self._stamp.touch()
            step.note("")
        return self.python

    def abandon(self) -> None:
        if self._pip and self._pip.poll() is None:
            self._pip.terminate()
            self._pip.wait()


def main_environment(*, dev: bool = False) -> Installation:
    """The control plane's environment."""
    name, more = ("requirements-dev.txt", " and its test tools") if dev else ("requirements.txt", "")
    return Installation(MAIN, ROOT / name, title=f"Install the control plane{more}")


def engine_environment() -> Installation:
    """The CPU engine's environment. --no-deps: the resolver would bring CUDA builds along."""
    requirements = ROOT / "requirements-engine-cpu.txt"
    return Installation(ENGINE, requirements, "--no-deps", title="Install the CPU engine (once)", fix=CPU_TORCH)


def install(screen: Screen, *wanted: Installation) -> None:
    """All at the same time: pip uses one core."""
    try:
        if not all(one.is_done for one in wanted):
            with screen.step("Make the environments"):
                for one in reversed(wanted):  # the longest stands last, and works while the next one is made
                    one.begin()
        for one in wanted:
            one.finish(screen)
    finally:
        for one in wanted:
            one.abandon()


def place_command(venv: Path = MAIN, root: Path = ROOT) -> Path:
    """The terminal command as `bin/forebay` of the environment: this checkout's, with nothing built for it."""
    file = venv / "bin" / "forebay"
    path, python = shlex.quote(str(root)), shlex.quote(str(venv / "bin" / "python"))
    file.write_text(f'#!/bin/sh\nPYTHONSAFEPATH=1 PYTHONPATH={path} exec {python} -m controlplane.cli "$@"\n')
    file.chmod(0o755)
    return file


def is_cpu_engine_likely(environ: Mapping[str, str]) -> bool:
    """Whether `manage.py up` will want the CPU engine, as far as can be told before anything is installed."""
    if environ.get("FOREBAY_VLLM") or environ.get("DEMO") == "none":
        return False
    return not any(Path(sign).exists() for sign in DRIVER_SIGNS)


def _digest(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]


def _make_venv(venv: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepFailed(
            f"Python could not make an environment in {venv}:\n{(done.stdout + done.stderr).strip()}",
            fix="on Debian: apt-get install python3-venv",
        )


def _packages(venv: Path) -> int:
    return sum(1 for _ in venv.glob("lib/python3*/site-packages/*.dist-info"))


def main(wanted: str) -> int:
    screen = Screen()
    if sys.version_info < OLDEST_PYTHON:
        screen.say(f"Forebay needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
        screen.say("Name another: make PYTHON=...")
        return 1
    chosen = {"run": [main_environment()], "engine": []}.get(wanted, [main_environment(dev=True)])
    if wanted in {"engine", "test"} or (wanted == "run" and is_cpu_engine_likely(os.environ)):
        chosen.append(engine_environment())
    try:
        install(screen, *chosen)
        if wanted != "engine":
            place_command()
    except StepFailed as error:
        screen.failed(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "run"))
