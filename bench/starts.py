"""How long an engine takes to answer on a CPU slot: started plainly, and forked from a process that has vLLM imported.
Both through the agent's own code, with the command line, environment and readiness test it goes by; one at a time.

    python -m bench.starts [--model DIR] [--vllm .venv-engine/bin/vllm] [--plain 3] [--forked 5] [--quick]
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from tests.e2e.stack import make_tiny_model
from workers import processes
from workers.contract import Device, DeviceKind, ReplicaSpec, Role
from workers.engines import Command, Launch
from workers.engines.vllm import Vllm
from workers.nursery import Nursery
from workers.ports import lease
from workers.processes import MARKER, Children, Marker, Process
from workers.starter import CPU_NICE

ROOT = Path(__file__).parents[1]
SLOT = Device(uuid="CPU-0", index=0, kind=DeviceKind.CPU, name="a slot", memory_bytes=4 * 2**30)
MARK = Marker("bench-starts", 1, 1)
READY_S = 180.0
Start = Callable[[Command, Path], Process]


@dataclass(frozen=True, slots=True)
class Measured:
    ready_s: float
    cpu_s: float
    pss_bytes: int  # each page that others map too counted as its share
    rss_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder; default: the tiny model, made here")
    parser.add_argument("--vllm", type=Path, default=ROOT / ".venv-engine" / "bin" / "vllm")
    parser.add_argument("--plain", type=int, default=3, help="starts")
    parser.add_argument("--forked", type=int, default=5, help="starts")
    parser.add_argument("--quick", action="store_true", help="one plain start and two forked ones")
    options = parser.parse_args()
    counts = (1, 2) if options.quick else (options.plain, options.forked)
    with tempfile.TemporaryDirectory() as folder:
        measure(options.vllm.absolute(), options.model or make_model(options.vllm, Path(folder)), Path(folder), *counts)


def measure(program: Path, model: str, folder: Path, plain_starts: int, forked_starts: int) -> None:
    vllm, children = Vllm(program), Children()
    nursery = Nursery(program, vllm.import_env("127.0.0.1"), folder / "nursery.log", nice=CPU_NICE)

    def plainly(command: Command, log: Path) -> Process:
        return children.start(command.argv, command.env, log, nice=CPU_NICE)

    def forked(command: Command, log: Path) -> Process:
        return nursery.fork(command.argv, command.env, log, vllm.version())

    plain = [one_start(vllm, model, folder, plainly) for _ in range(plain_starts)]
    began = time.monotonic()
    nursery.launch()
    while nursery.is_importing():
        time.sleep(0.05)
    import_s = time.monotonic() - began
    idle = processes.pss_bytes([nursery.pid]) if nursery.pid else 0
    try:
        quick = [one_start(vllm, model, folder, forked) for _ in range(forked_starts)]
    finally:
        nursery.close()
    report(vllm.version(), plain, quick, import_s, idle or 0)


def one_start(vllm: Vllm, model: str, folder: Path, start: Start) -> Measured:
    port, side = (lease(range(first, first + 99), set(), "127.0.0.1", 0) for first in (23100, 23200))
    spec = ReplicaSpec(
        partition=1, name="bench", deployment="bench", role=Role.PREFILL, gpus=(SLOT.uuid,), model=model,
        served_names=("bench",), kv_connector="NixlConnector", api_key="bench",
    )  # fmt: skip
    command = vllm.command(Launch(spec, (SLOT,), "127.0.0.1", "127.0.0.1", port, side, 1))
    log, began = folder / "engine.log", time.monotonic()
    process = start(Command(command.argv, {**command.env, MARKER: str(MARK)}), log)
    try:
        with httpx.Client(trust_env=False) as client:
            while not vllm.is_ready(client, f"http://127.0.0.1:{port}", spec):
                if not processes.is_alive(process) or time.monotonic() - began > READY_S:
                    raise SystemExit(f"the engine did not become ready:\n{log.read_text()[-2000:]}")
                time.sleep(0.05)
        return _figures(process, time.monotonic() - began)
    finally:
        _end(process)


def report(version: str, plain: list[Measured], forked: list[Measured], import_s: float, idle_bytes: int) -> None:
    print(f"vLLM {version}, from the start to the first answer; median (least to most)")
    print(f"{'':10}{'starts':>7}{'ready, s':>24}{'CPU, s':>9}{'PSS, MB':>10}{'RSS, MB':>10}")
    for name, runs in (("plain", plain), ("forked", forked)):
        times = [run.ready_s for run in runs]
        spread = f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        cpu = median(run.cpu_s for run in runs)
        pss, rss = (median(getattr(run, key) for run in runs) / 2**20 for key in ("pss_bytes", "rss_bytes"))
        print(f"{name:10}{len(runs):7}{spread:>24}{cpu:9.1f}{pss:10.0f}{rss:10.0f}")
    print(f"the nursery: {import_s:.1f} s to import, {idle_bytes / 2**20:.0f} MB PSS while no engine shares its pages")
    plain_s, forked_s = (median(run.ready_s for run in runs) for runs in (plain, forked))
    figures = {"plain_s": plain_s, "forked_s": forked_s, "ratio": plain_s / forked_s, "import_s": import_s}
    sizes = {
        "plain_pss_mb": median(run.pss_bytes for run in plain) / 2**20,
        "forked_pss_mb": median(run.pss_bytes for run in forked) / 2**20,
        "nursery_pss_mb": idle_bytes / 2**20,
    }
    print("RESULT", json.dumps({key: round(value, 2) for key, value in (figures | sizes).items()}), flush=True)


def make_model(vllm: Path, folder: Path) -> str:
    make_tiny_model(folder / "tiny", vllm.with_name("python"))
    return str(folder / "tiny")


def _figures(process: Process, ready_s: float) -> Measured:
    members = processes.tree(process)
    pss = processes.pss_bytes(member.pid for member in members) or 0
    cpu = processes.figures(members).cpu_s
    return Measured(ready_s, sum(cpu.values()), pss, sum(member.memory_info().rss for member in members))


def _end(process: Process) -> None:
    processes.signal_leader(process, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while processes.is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes.kill(processes.members(process, MARK))


if __name__ == "__main__":
    main()
