"""One run of the measuring program: how it is started, ended, and what it said.

It holds the other end of the program's standard input, so that the program ends with the agent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from workers import processes
from workers.contract import Device, DeviceKind, DeviceSample
from workers.devices import Source
from workers.processes import Process
from workers.qualification import Figures, Qualification, QualifyState, QualifyWanted

log = logging.getLogger(__name__)
PROGRAM = Path(__file__).parent / "qualify.py"
MEASURING_S = 90.0  # besides the soak; the program leaves out what it does not get to
SLACK_S = 30.0  # beyond its own budget, before it is ended
GONE_S = 2.0  # how long one that was killed may take to let go of the device
MOST_OUTPUT = 262_144
CPU_NICE = 10
NO_ANSWER = 3  # exit code with which the program says why it cannot measure
DROPPED = ("FOREBAY_", "DJANGO_", "CELERY_", "PYTHON", "VIRTUAL_ENV", "VLLM_")


class CannotMeasure(Exception):
    """The message tells a person why."""


class Told(msgspec.Struct, frozen=True):
    """What the program says when it cannot measure."""

    error: str


@dataclass(slots=True)
class Run:
    """The measurement under way, and what the device said meanwhile."""

    wanted: QualifyWanted
    child: subprocess.Popen[bytes]
    process: Process
    gpus: tuple[str, ...]  # the one it measures, then those it copies to
    until: float
    given_up: bool = False
    temperature_c: float | None = None
    throttle: set[str] = field(default_factory=set)
    ecc: list[int] = field(default_factory=list)  # total at first and now

    def observe(self, samples: Iterable[DeviceSample]) -> None:
        for sample in samples:
            if sample.uuid != self.wanted.gpu:
                continue
            if sample.temperature_c is not None:
                self.temperature_c = max(sample.temperature_c, self.temperature_c or sample.temperature_c)
            if sample.ecc_uncorrected is not None:
                self.ecc = [*self.ecc[:1], sample.ecc_uncorrected]
            self.throttle |= set(filter(None, sample.throttle.split(",")))

    def kill(self) -> bool:
        """Give it up; whether it is gone, for which GONE_S are waited."""
        self.given_up = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        try:
            self.child.wait(GONE_S)
        except subprocess.TimeoutExpired:
            log.warning("pid %d is still not gone", self.child.pid)
            return False
        return True

    def close(self) -> None:
        if self.child.stdin:
            self.child.stdin.close()


class Program:
    def __init__(
        self, folder: Path, source: Source, python: Callable[[], str], environ: Mapping[str, str] = os.environ
    ) -> None:
        """`python`: the interpreter that has torch, "" where there is none."""
        self._folder, self._source, self._python, self._environ = folder, source, python, environ

    def start(self, one: QualifyWanted, device: Device, peers: Sequence[str], now: float) -> Run:
        """Raises CannotMeasure, OSError."""
        if device.kind == DeviceKind.SIMULATED:
            raise CannotMeasure("a simulated device has nothing to measure")
        python = self._python()
        if not python:
            raise CannotMeasure("no Python beside the vllm program on this node: set FOREBAY_VLLM to vllm's path")
        budget = one.soak_s + MEASURING_S
        argv = [python, "-I", str(PROGRAM), "--soak", str(one.soak_s), "--budget", str(budget), "--tether"]
        cores = self._source.cores([one.gpu])
        argv += ["--device", "cpu", "--threads", str(cores)] if cores else ["--device", "cuda"]
        argv += ["--peers", ",".join(peers)] if peers else []
        with self._output("out") as out, self._output("err") as err:
            child = subprocess.Popen(  # noqa: S603 - our own program, no shell
                argv, env=self._env(one.gpu, peers, cores), stdin=subprocess.PIPE, stdout=out, stderr=err, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        if cores:
            with contextlib.suppress(OSError):  # it ended at once
                os.setpriority(os.PRIO_PROCESS, child.pid, os.getpriority(os.PRIO_PROCESS, 0) + CPU_NICE)
        log.info("measuring %s: pid %d", one.gpu, child.pid)
        process = Process(child.pid, processes.born(child.pid), processes.boot_id())
        return Run(one, child, process, (one.gpu, *peers), now + budget + SLACK_S)

    def outcome(self, run: Run) -> Qualification:
        """What the program that has ended said, whatever it was."""
        code, last = run.child.returncode, _last_line(self._folder / "qualify.out")
        try:
            if code == NO_ANSWER:
                return failed(run.wanted, msgspec.json.decode(last, type=Told).error)
            if code != 0:
                detail = _last_line(self._folder / "qualify.err").decode(errors="replace")
                return failed(run.wanted, ": ".join(filter(None, [processes.how_it_ended(code), detail])))
            figures = msgspec.json.decode(last, type=Figures)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return failed(run.wanted, f"the measuring program printed something else than its result: {error}")
        return Qualification(
            id=run.wanted.id,
            gpu=run.wanted.gpu,
            state=QualifyState.DONE,
            figures=figures,
            temperature_c=run.temperature_c,
            throttle=",".join(sorted(run.throttle))[:256],
            ecc_errors=max(0, run.ecc[-1] - run.ecc[0]) if run.ecc else None,
        )

    def _env(self, gpu: str, peers: Sequence[str], cores: int) -> dict[str, str]:
        env = {name: value for name, value in self._environ.items() if not name.startswith(DROPPED)}
        if cores:
            return env | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(cores)}
        return env | {"CUDA_VISIBLE_DEVICES": ",".join((gpu, *peers)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    def _output(self, kind: str) -> IO[bytes]:
        path = self._folder / f"qualify.{kind}"
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def failed(wanted: QualifyWanted, why: str) -> Qualification:
    log.warning("%s could not be measured: %s", wanted.gpu, why)
    return Qualification(id=wanted.id, gpu=wanted.gpu, state=QualifyState.FAILED, message=why[:256])


def _last_line(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            lines = file.read(MOST_OUTPUT).strip().splitlines()
    except OSError:
        return b""
    return lines[-1] if lines else b""
