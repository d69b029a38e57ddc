"""Measures one GPU, or CPU slot, with torch and prints what it found as one line of JSON.

It runs in the engine's Python, which has torch, as a program of its own: of this project it imports nothing. What could
not be measured is named in `missing` and left out, never made up. Temperature, throttling and ECC errors meanwhile are
the agent's to read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

# Without a workspace of its own cuBLAS may add up in another order the second time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

SIZES = {"cuda": (2048, 4096, 8192), "cpu": (256, 512, 1024)}
BUFFER_BYTES = {"cuda": 1 << 30, "cpu": 128 << 20}  # well past the caches
LINK_BYTES = 256 << 20
BATCH_S = {"cuda": 0.02, "cpu": 0.01}  # one timing spans at least so long
WARM_S = {"cuda": 0.3, "cpu": 0.02}
BATCHES = 9
PHASE_S = {"cuda": 2.0, "cpu": 0.25}  # what one figure may take
WINDOW_S = 0.5  # of the soak: one rate, one comparison
TOLERANCE = 0.02  # of a bf16 product against float64, relative to the largest entry
CANNOT, ENDED = 3, 4  # exit codes: there is nothing to measure with; whoever asked is gone


@dataclass(frozen=True)
class Rate:
    median: float
    spread: float  # (largest - smallest) / median

    @classmethod
    def of(cls, rates: list[float]) -> Rate:
        middle = statistics.median(rates)
        return cls(middle, (max(rates) - min(rates)) / middle)


class OutOfTime(Exception):
    """The budget is used up."""


@dataclass
class Bench:
    """torch, the device, and the clock: what every measurement needs."""

    torch: Any
    kind: str  # cuda | cpu
    until: float
    missing: list[str] = field(default_factory=list)

    def seconds(self, work: Callable[[], object], times: int) -> float:
        """How long one `work` takes, over `times` of them: by the GPU's own clock where there is one."""
        if self.kind == "cpu":
            began = time.perf_counter()
            for _ in range(times):
                work()
            return (time.perf_counter() - began) / times
        first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(times):
            work()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000 / times

    def rate(self, work: Callable[[], object], amount: float) -> Rate:
        """`amount` per second over BATCHES batches, after a warm-up; fewer where they would take too long."""
        self.require(0.0)
        one = self.seconds(work, 1)
        one = self.seconds(work, max(1, int(WARM_S[self.kind] / max(one, 1e-6))))
        times = max(1, round(BATCH_S[self.kind] / max(one, 1e-7)))
        stop, rates = time.monotonic() + PHASE_S[self.kind], [amount / one]
        while len(rates) <= BATCHES and time.monotonic() < min(stop, self.until):
            rates.append(amount / self.seconds(work, times))
        return Rate.of(rates[1:] or rates)

    def require(self, seconds: float) -> None:
        if time.monotonic() + seconds > self.until:
            raise OutOfTime

    def free_bytes(self) -> int:
        return int(self.torch.cuda.mem_get_info()[0]) if self.kind == "cuda" else 1 << 40

    def random(self, n: int, dtype: Any) -> Any:
        """The same numbers in every run. Random ones: a product of zeros draws no power and so is never throttled."""
        generator = self.torch.Generator(device=self.kind).manual_seed(n)
        return self.torch.randn(n, n, device=self.kind, generator=generator, dtype=self.torch.float32).to(dtype)


def matmul(bench: Bench, dtype: Any) -> dict[str, Any]:
    """TFLOP/s of a square product: the best of the sizes, with all of them beside it."""
    tried = []
    for n in SIZES[bench.kind]:
        if bench.free_bytes() < 16 * n * n:
            continue
        a, b = bench.random(n, dtype), bench.random(n, dtype)
        out = bench.torch.empty_like(a)
        rate = bench.rate(partial(bench.torch.mm, a, b, out=out), 2 * n**3 / 1e12)
        tried.append({"n": n, "tflops": rate.median, "spread": rate.spread})
        if 8 * 2 * n**3 / 1e12 / rate.median > PHASE_S[bench.kind]:
            break  # the next size would be too slow to be measured twice: a CPU without bf16 instructions
    if not tried:
        raise bench.torch.cuda.OutOfMemoryError(f"{bench.free_bytes()} bytes are free")
    return max(tried, key=lambda one: float(one["tflops"])) | {"sizes": tried}


def memory(bench: Bench) -> Rate:
    """GB/s read and written: the better of copy (two streams) and triad (three)."""
    count = min(BUFFER_BYTES[bench.kind], bench.free_bytes() // 6) // 4
    a, b, c = (bench.torch.full((count,), float(i), device=bench.kind) for i in range(3))
    copy = bench.rate(lambda: a.copy_(b), 2 * 4 * count / 1e9)
    triad = bench.rate(lambda: bench.torch.add(b, c, alpha=1.5, out=a), 3 * 4 * count / 1e9)
    return max(copy, triad, key=lambda rate: rate.median)


def host_link(bench: Bench) -> tuple[Rate, Rate]:
    """GB/s from pinned host memory to the GPU, and back."""
    host = bench.torch.empty(LINK_BYTES, dtype=bench.torch.uint8, pin_memory=True)
    here = bench.torch.empty(LINK_BYTES, dtype=bench.torch.uint8, device="cuda")
    up = bench.rate(lambda: here.copy_(host, non_blocking=True), LINK_BYTES / 1e9)
    return up, bench.rate(lambda: host.copy_(here, non_blocking=True), LINK_BYTES / 1e9)


def peers(bench: Bench, uuids: list[str]) -> Iterator[dict[str, Any]]:
    """GB/s to each other visible GPU. Without peer access the copy goes through the host, which is told."""
    source = bench.torch.empty(LINK_BYTES, dtype=bench.torch.uint8, device="cuda:0")
    for number, uuid in enumerate(uuids, start=1):
        bench.require(0.0)
        target = bench.torch.empty(LINK_BYTES, dtype=bench.torch.uint8, device=f"cuda:{number}")
        rate = bench.rate(partial(target.copy_, source, non_blocking=True), LINK_BYTES / 1e9)
        direct = bool(bench.torch.cuda.can_device_access_peer(0, number))
        yield {"uuid": uuid, "gbs": rate.median, "direct": direct}


def errors(bench: Bench, n: int = 256) -> int:
    """Whether the arithmetic is right at all: bf16 products against float64 ones of the host."""
    a, b = bench.random(n, bench.torch.bfloat16), bench.random(n, bench.torch.bfloat16).t()
    exact = a.cpu().double() @ b.cpu().double()
    off = (bench.torch.mm(a, b).cpu().double() - exact).abs().max() / exact.abs().max()
    return int(not bool(off < TOLERANCE))


def soak(bench: Bench, seconds: float, n: int, dtype: Any) -> dict[str, Any]:
    """One product over and over. It must give the same bits each time, and keep its rate."""
    torch = bench.torch
    a, b = bench.random(n, dtype), bench.random(n, dtype)
    first, out = torch.mm(a, b), torch.empty_like(a)
    mismatches, rates, began = 0, list[float](), time.monotonic()
    times = max(1, int(WINDOW_S / max(bench.seconds(lambda: torch.mm(a, b, out=out), 3), 1e-7)))
    while len(rates) < 2 or time.monotonic() - began < seconds:
        bench.require(0.0)
        rates.append(2 * n**3 / 1e12 / bench.seconds(lambda: torch.mm(a, b, out=out), times))
        mismatches += int(not torch.equal(first, out))
    part = max(1, len(rates) // 4)
    at_first, at_last = statistics.median(rates[:part]), statistics.median(rates[-part:])
    return {
        "seconds": time.monotonic() - began,
        "drift": 1 - at_last / at_first,
        "checks": len(rates),
        "mismatches": mismatches,
    }


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """All figures there is time for."""
    torch, found = bench.torch, dict[str, Any]()
    for step in _steps(bench, options, found):
        try:
            step()
        except OutOfTime:
            bench.missing.append(f"{step.__name__}: out of time")
        except torch.cuda.OutOfMemoryError:
            bench.missing.append(f"{step.__name__}: not enough free memory")
            torch.cuda.empty_cache()
        except RuntimeError as error:  # what the driver says of a GPU that fails
            found.setdefault("faults", []).append(f"{step.__name__}: {str(error).partition(chr(10))[0][:200]}")
    return found


def _steps(bench: Bench, options: argparse.Namespace, found: dict[str, Any]) -> list[Callable[[], None]]:
    torch = bench.torch

    def arithmetic() -> None:
        found["wrong"] = errors(bench)

    def bf16_rate() -> None:
        bf16 = matmul(bench, torch.bfloat16)
        found.update(bf16_tflops=bf16["tflops"], bf16_spread=bf16["spread"], bf16_n=bf16["n"], sizes=bf16["sizes"])

    def fp32_rate() -> None:
        found["fp32_tflops"] = matmul(bench, torch.float32)["tflops"]

    def memory_bandwidth() -> None:
        rate = memory(bench)
        found.update(memory_gbs=rate.median, memory_spread=rate.spread)

    def host_bandwidth() -> None:
        up, down = host_link(bench)
        found.update(to_device_gbs=up.median, to_host_gbs=down.median)

    def peer_bandwidth() -> None:
        found["peers"] = []
        for one in peers(bench, options.peers):
            found["peers"].append(one)

    def soaking() -> None:
        found["soak"] = soak(bench, options.soak, found.get("bf16_n", SIZES[bench.kind][0]), torch.bfloat16)

    only_gpu = [host_bandwidth, peer_bandwidth] if bench.kind == "cuda" else [fp32_rate]
    return [arithmetic, bf16_rate, memory_bandwidth, *only_gpu, soaking]


def main() -> int:
    options = _options()
    if options.tether:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    began = time.monotonic()
    try:
        import torch
    except ImportError as error:
        return _say({"error": f"torch cannot be imported: {error}"}, CANNOT)
    if options.device == "cuda" and not torch.cuda.is_available():
        return _say({"error": "torch sees no GPU: its build or the driver does not fit"}, CANNOT)
    if options.device == "cuda" and torch.cuda.device_count() != 1 + len(options.peers):
        return _say({"error": f"torch sees {torch.cuda.device_count()} GPUs of {1 + len(options.peers)}"}, CANNOT)
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(torch, options.device, began + options.budget)
    loaded = time.monotonic()
    found = measure(bench, options)
    device = torch.cuda.get_device_name(0) if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    return _say(
        {
            **found,
            "torch": torch.__version__,
            "cuda": torch.version.cuda or "",
            "device": device,
            "missing": bench.missing,
            "seconds": time.monotonic() - loaded,
            "import_s": loaded - began,
        },
        0,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure one GPU or CPU slot with torch.")
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--peers", type=lambda text: list(filter(None, text.split(","))), default=[],
                        help="uuids of the other visible GPUs, in their order")  # fmt: skip
    parser.add_argument("--soak", type=float, default=30.0, help="seconds (default 30)")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for everything (default 120)")
    parser.add_argument("--threads", type=int, default=0, help="of torch on a CPU (default: torch's own choice)")
    parser.add_argument("--tether", action="store_true", help="end when standard input does")
    return parser.parse_args()


def _end_with_stdin() -> None:
    """Whoever started it holds the other end: with them gone nobody would take the result."""
    while os.read(0, 4096):
        pass
    os._exit(ENDED)


def _say(found: dict[str, Any], code: int) -> int:
    print(json.dumps(found), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
