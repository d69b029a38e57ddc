"""The agent measures GPUs that nothing else is on, makes way for engines at once, and keeps results until they have
arrived. The measuring program is a fake one here; the real one is in test_qualify_program.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workers.control import alive, make_spec, until
from workers.contract import Device, DeviceKind, DeviceSample, Phase
from workers.measuring import Program
from workers.qualification import Qualification, QualifyState, QualifyWanted
from workers.qualifying import Qualifier

FAKE = f"""#!{sys.executable} -S
import json, os, sys, time
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
if sys.argv[1:3] == ["-I", "-c"]:
    sys.exit(print("0.0.test"))
with open(folder + "/started", "a") as file:
    print(json.dumps([os.getpid(), sys.argv[1:], os.environ.get("CUDA_VISIBLE_DEVICES")]), file=file)
how = open(folder + "/how").read()
if how == "hang":
    time.sleep(60)
if how == "crash":
    print("almost a result"), print("boom", file=sys.stderr), sys.exit(7)
if how == "cannot":
    print(json.dumps(dict(error="torch sees no GPU"))), sys.exit(3)
print(how)
"""
FIGURES = {"torch": "2.0", "bf16_tflops": 600.0, "memory_gbs": 3000.0, "seconds": 4.0, "import_s": 1.0}
ONE = QualifyWanted(id="7", gpu="GPU-a", soak_s=1)


class Gpus:
    """A host with two whole GPUs and a slice of a third."""

    simulated = False

    def __init__(self, cores: int = 0) -> None:
        self._cores = cores

    def driver(self) -> str:
        return "none"

    def devices(self) -> tuple[Device, ...]:
        whole = [("GPU-a", DeviceKind.NVIDIA), ("GPU-b", DeviceKind.NVIDIA), ("MIG-c", DeviceKind.MIG)]
        return tuple(
            Device(uuid=uuid, index=i, kind=kind, name="test", memory_bytes=1) for i, (uuid, kind) in enumerate(whole)
        )

    def sample(self, holders: object, now: float) -> tuple[DeviceSample, ...]:
        return ()

    def cores(self, uuids: object) -> int:
        return self._cores


class Place:
    """An agent's home with the fake program in it, and the readings of its GPUs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, Gpus()
        self.samples = [DeviceSample(uuid=device.uuid) for device in self.source.devices()]
        self.fake = folder / "python"
        self.fake.write_text(FAKE)
        self.fake.chmod(0o700)
        self.how(json.dumps(FIGURES))
        self.made: list[Qualifier] = []

    def how(self, text: str) -> None:
        (self.folder / "how").write_text(text)

    def qualifier(self, python: str | None = None) -> Qualifier:
        program = Program(self.folder, self.source, lambda: str(self.fake) if python is None else python)
        made = Qualifier(self.folder, program=program, source=self.source, samples=lambda: self.samples)
        self.made.append(made)
        return made

    def started(self) -> list[list]:
        file = self.folder / "started"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for qualifier in made.made:
        qualifier.stop()


def run_out(qualifier: Qualifier, *wanted: QualifyWanted) -> Qualification:
    """Tick until the first of them has a result."""
    ended = {QualifyState.DONE, QualifyState.FAILED}
    return until(lambda: (q := qualifier.tick(wanted, {}, 0.0)[0]).state in ended and q, 20)


def test_a_result_is_kept_over_a_restart_until_it_is_no_longer_asked_for(place):
    place.samples[0] = DeviceSample(uuid="GPU-a", temperature_c=71.0, throttle="SwPowerCap", ecc_uncorrected=4)
    done = run_out(place.qualifier(), ONE)
    assert done.state == QualifyState.DONE and done.figures.bf16_tflops == 600.0 and done.id == "7"
    [(_, argv, visible)] = place.started()
    assert visible == "GPU-a,GPU-b" and argv[-2:] == ["--peers", "GPU-b"] and "cuda" in argv and "-I" in argv
    again = place.qualifier()
    assert again.tick([ONE], {}, 0.0) == (done,) and len(place.started()) == 1
    again.tick([], {}, 0.0)
    run_out(place.qualifier(), ONE)
    assert len(place.started()) == 2


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("crash", "exited with code 7: boom"),
        ("cannot", "torch sees no GPU"),
        ("a banner of a library", "printed something else"),
        ('{"bf16_tflops": NaN}', "printed something else"),
        ('{"bf16_tflops": -1}', "printed something else"),
    ],
)
def test_what_the_program_says_when_it_fails_is_told_and_not_tried_again(place, how, why):
    place.how(how)
    qualifier = place.qualifier()
    failed = run_out(qualifier, ONE)
    assert failed.state == QualifyState.FAILED and why in failed.message and failed.figures is None
    qualifier.tick([ONE], {}, 1.0)
    assert len(place.started()) == 1


def test_without_the_engines_python_it_says_what_to_set(place):
    assert "FOREBAY_VLLM" in run_out(place.qualifier(python=""), ONE).message


def test_a_program_that_hangs_is_ended_at_its_deadline(place):
    place.how("hang")
    qualifier = place.qualifier()
    assert qualifier.tick([ONE], {}, 0.0)[0].state == QualifyState.RUNNING
    [[pid, *_]] = until(place.started)
    assert qualifier.tick([ONE], {}, 1000.0)[0].state == QualifyState.FAILED
    assert not alive(pid) and qualifier.held() == frozenset()


@pytest.mark.parametrize("taken", ["GPU-a", "GPU-b"])
def test_it_makes_way_for_an_engine_and_measures_again_when_the_gpu_is_free(place, taken):
    place.how("hang")
    qualifier = place.qualifier()
    qualifier.tick([ONE], {}, 0.0)
    [[pid, *_]] = until(place.started)
    assert qualifier.held() == {"GPU-a", "GPU-b"}
    qualifier.tick([ONE], {"GPU-a": "p0", taken: "p0"}, 1.0)
    assert not alive(pid) and qualifier.held() == frozenset()
    [waiting] = qualifier.tick([ONE], {"GPU-a": "p0"}, 1.0)
    assert waiting.state == QualifyState.WAITING and waiting.message == "the device is held by p0"
    place.how(json.dumps(FIGURES))
    assert run_out(qualifier, ONE).state == QualifyState.DONE


def test_one_at_a_time_a_slice_sees_itself_alone_and_nothing_runs_beside_somebody_elses_process(place):
    place.samples[1] = DeviceSample(uuid="GPU-b", foreign_pids=(1,))
    place.how("hang")
    qualifier = place.qualifier()
    wanted = [QualifyWanted(id=str(i), gpu=gpu) for i, gpu in enumerate(("GPU-b", "GPU-x", "MIG-c", "GPU-a"))]
    b, x, mig, a = qualifier.tick(wanted, {}, 0.0)
    assert "somebody else's" in b.message and "not on this node" in x.message
    assert mig.state == QualifyState.RUNNING and a.message == "another device of the node is being measured"
    [[_, argv, visible]] = until(place.started)
    assert visible == "MIG-c" and "--peers" not in argv
    qualifier.tick(wanted[3:], {}, 0.0)
    [_, [_, argv, visible]] = until(lambda: len(s := place.started()) == 2 and s)
    assert visible == "GPU-a"  # its only peer is in somebody else's use


def test_an_assignment_ends_a_measurement_at_once_and_the_engine_starts(tmp_path, new_agent: Callable, control):
    place = Place(tmp_path)
    place.how("hang")
    vllm = tmp_path / "vllm"
    vllm.write_text(f"#!{place.fake}\n")
    vllm.chmod(0o700)
    agent = new_agent(FOREBAY_DEVICES="cpu", FOREBAY_CPU_SLOTS="1", FOREBAY_VLLM=str(vllm))
    agent.join()
    agent.start()
    slot = until(lambda: control.reports and control.last.devices)[0].uuid
    control.want(qualify=(QualifyWanted(id="1", gpu=slot),))
    until(lambda: [q.state for q in control.last.qualifications] == [QualifyState.RUNNING], 20)
    [[pid, *_]] = until(place.started)
    assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
    control.want(make_spec(1, gpus=(slot,), drain_s=0.5), qualify=(QualifyWanted(id="1", gpu=slot),))
    began = time.monotonic()
    until(lambda: (r := control.replica(1)) and r.phase in {Phase.STARTING, Phase.READY}, 20)
    assert not alive(pid) and time.monotonic() - began < 5
    until(lambda: control.is_ready(1))
    assert [q.state for q in control.last.qualifications] == [QualifyState.WAITING]
    place.how(json.dumps(FIGURES))
    control.want(qualify=(QualifyWanted(id="1", gpu=slot),))
    done = until(lambda: [q for q in control.last.qualifications if q.state == QualifyState.DONE], 30)
    assert done[0].figures.memory_gbs == 3000.0
    agent.kill()
    control.reports.clear()
    agent.start()
    assert until(lambda: control.reports and control.last.qualifications)[0] == done[0]
