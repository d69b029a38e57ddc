"""The nursery with a package in vLLM's place that starts in no time: what becomes of engines, nursery and agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.workers.control import ROOT, alive, until
from workers import processes
from workers.engines.traces import Traces
from workers.nursery import NoFork, Nursery
from workers.processes import GPUS, MARKER, Marked, Marker, Process

HOME = f"nursery-{os.getpid()}"
# As vLLM: a package with a main of its own. It says what it was started with, and serves until it is told to end.
MAIN = """
import json, os, signal, sys, time
def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(os.environ.get("CODE", "0"))))
    print(json.dumps([sys.argv, dict(os.environ), sorted(os.listdir("/proc/self/fd"))]), flush=True)
    while True:
        time.sleep(0.02)
"""


class Bed:
    """A program that looks like vLLM's, and nurseries of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.program, self.log = folder, folder / "bin" / "vllm", folder / "engine.log"
        self.package = folder / "site" / "vllm"
        self.env = {"PYTHONPATH": str(folder / "site"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.made: list[Nursery] = []
        for path, text in (
            (self.package / "__init__.py", ""),
            (self.package / "entrypoints" / "__init__.py", ""),
            (self.package / "entrypoints" / "cli" / "__init__.py", ""),
            (self.main(), MAIN),
            (self.program, f"#!{sys.executable}\nfrom vllm.entrypoints.cli.main import main\nmain()\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.program.chmod(0o755)

    def main(self) -> Path:
        return self.package / "entrypoints" / "cli" / "main.py"

    def nursery(self, *, answer_s: float = 10.0) -> Nursery:
        made = Nursery(self.program, self.env, self.folder / "nursery.log", answer_s=answer_s)
        self.made.append(made)
        made.launch()
        until(lambda: not made.is_importing())
        return made

    def fork(self, nursery: Nursery, version: str = "", **more: str) -> Process:
        env = {**self.env, MARKER: str(Marker(HOME, 3, 4)), GPUS: "CPU-0,CPU-1", **more}
        return nursery.fork([str(self.program), "serve", "a model"], env, self.log, version)

    def said(self) -> list[list[object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    for nursery in made.made:
        nursery.close()
    processes.kill([stray.pid for stray in processes.marked(HOME)])


def test_a_forked_engine_is_what_a_plain_start_makes_of_it(bed: Bed) -> None:
    bed.log.write_text("")
    own = {"VLLM_API_KEY": "its own", **Traces("http://127.0.0.1:4318/v1/traces", "http/protobuf").env()}
    process = bed.fork(bed.nursery(), **own)
    [[argv, env, files]] = until(bed.said)
    assert argv == [str(bed.program), "serve", "a model"] == [*filter(None, psutil.Process(process.pid).cmdline())]
    assert env == bed.env | {MARKER: f"{HOME}/3/4", GPUS: "CPU-0,CPU-1"} | own
    assert files == ["0", "1", "2", "3"], "it holds files of the nursery"  # the last is the listing itself
    assert processes.marked(HOME) == [Marked(process.pid, Marker(HOME, 3, 4), ("CPU-0", "CPU-1"))]
    assert processes.session_of(process.pid) == process.pid and processes.is_alive(process)
    assert bed.log.stat().st_mode & 0o777 == 0o644, "the log was there before"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 7), (signal.SIGKILL, -9)])
def test_how_a_forked_engine_ended_is_known(bed: Bed, signum: int, code: int) -> None:
    bed.env["CODE"] = "7"
    nursery = bed.nursery()
    process = bed.fork(nursery)
    until(bed.said)
    assert nursery.exit_code(process.pid) is None
    os.kill(process.pid, signum)
    until(lambda: not processes.is_alive(process))
    assert nursery.exit_code(process.pid) == code
    nursery.forget(process.pid)
    assert nursery.exit_code(process.pid) is None


def test_engines_outlive_the_nursery_and_the_next_start_is_a_plain_one_until_another_is_up(bed: Bed) -> None:
    nursery = bed.nursery()
    process, first = bed.fork(nursery), nursery.pid
    os.kill(first, signal.SIGKILL)
    with pytest.raises(NoFork, match=r"the nursery (ended|failed to fork)"):
        until(lambda: bed.fork(nursery))
    assert processes.is_alive(process) and nursery.exit_code(process.pid) is None
    assert not nursery.is_importing(), "a start waits for the first import alone"
    again = until(lambda: _attempt(lambda: bed.fork(nursery)))
    assert nursery.pid != first and processes.is_alive(again)
    nursery.close()
    assert processes.is_alive(process) and processes.is_alive(again) and nursery.pid is None


def test_a_nursery_that_does_not_answer_is_ended_and_leaves_no_engine(bed: Bed) -> None:
    nursery = bed.nursery(answer_s=0.3)
    os.kill(nursery.pid, signal.SIGSTOP)
    with pytest.raises(NoFork, match=r"no answer in 0\.3 s"):
        bed.fork(nursery)
    time.sleep(0.2)
    assert processes.marked(HOME) == [] and bed.said() == []


def test_an_engine_that_no_agent_came_to_know_of_ends_without_having_begun(bed: Bed) -> None:
    """The nursery forks, and the agent dies before it has the answer."""
    script = (
        "import os, signal, sys; from pathlib import Path; from workers.nursery import Nursery\n"
        f"n = Nursery(Path({str(bed.program)!r}), {bed.env!r}, Path({str(bed.folder / 'nursery.log')!r}))\n"
        "n.launch()\nwhile n.is_importing(): pass\n"
        "n._reply = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"n.fork([{str(bed.program)!r}], {bed.env!r}, Path({str(bed.log)!r}))\n"
    )
    nursery_mark = str(bed.folder / "bin" / "vllm")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    until(lambda: not _running(nursery_mark))
    assert bed.said() == []


def test_a_nursery_that_still_imports_ends_with_its_agent(bed: Bed) -> None:
    bed.main().write_text("import time\ntime.sleep(60)\n")
    script = (
        "import time; from pathlib import Path; from workers.nursery import Nursery\n"
        f"n = Nursery(Path({str(bed.program)!r}), {bed.env!r}, Path({str(bed.folder / 'nursery.log')!r}))\n"
        "n.launch()\nprint(n.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as agent:
        pid = int(agent.stdout.readline())
        time.sleep(0.3)
        assert alive(pid)
        agent.kill()
    until(lambda: not alive(pid))


def test_another_environment_or_version_or_program_is_started_plainly(bed: Bed) -> None:
    nursery = bed.nursery()
    with pytest.raises(NoFork, match="under another HF_HUB_OFFLINE"):
        bed.fork(nursery, HF_HUB_OFFLINE="0")
    with pytest.raises(NoFork, match="and the engine is 99"):
        bed.fork(nursery, version="99")
    bed.program.write_text(bed.program.read_text() + "# upgraded\n")
    with pytest.raises(NoFork, match="changed since"):
        bed.fork(nursery)
    assert until(lambda: _attempt(lambda: bed.fork(nursery)))


def test_what_is_no_vllm_gets_no_nursery(bed: Bed) -> None:
    bed.program.write_text(f"#!{sys.executable}\nprint('a wrapper')\n")
    nursery = bed.nursery()
    assert nursery.pid is None
    with pytest.raises(NoFork, match="is not the script that vLLM installs"):
        bed.fork(nursery)


def test_a_vllm_that_cannot_be_imported_is_told_and_not_tried_again(bed: Bed) -> None:
    bed.main().write_text("raise RuntimeError('no such library')\n")
    nursery = bed.nursery()
    for _ in range(2):
        with pytest.raises(NoFork, match="no such library"):
            bed.fork(nursery)
    assert nursery.pid is None


def test_a_vllm_that_starts_threads_when_imported_is_not_forked(bed: Bed) -> None:
    more = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    bed.main().write_text(MAIN + more)
    with pytest.raises(NoFork, match="has 2 threads"):
        bed.fork(bed.nursery())


def _attempt(fork: Callable[[], Process]) -> Process | None:
    try:
        return fork()
    except NoFork:
        return None


def _running(words: str) -> bool:
    return any(words in (one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
