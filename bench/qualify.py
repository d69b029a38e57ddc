"""What the GPUs of this host come to, or its processor where there is none: the program that qualifies a GPU, run once
for each with the engine's Python.

    python -m bench.qualify [--python .venv-engine/bin/python] [--soak 30] [--gpus 0,1] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "workers" / "qualify.py"
ROWS = (
    ("bf16 matmul", "bf16_tflops", "TFLOP/s"),
    ("fp32 matmul", "fp32_tflops", "TFLOP/s"),
    ("device memory", "memory_gbs", "GB/s"),
    ("host to device", "to_device_gbs", "GB/s"),
    ("device to host", "to_host_gbs", "GB/s"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-engine" / "bin" / "python")
    parser.add_argument("--soak", type=float, default=30.0, help="seconds")
    parser.add_argument(
        "--gpus", default="", help="as CUDA_VISIBLE_DEVICES names them; default: all, else the processor"
    )
    parser.add_argument("--threads", type=int, default=0, help="on the processor; default: all cores")
    parser.add_argument("--quick", action="store_true", help="a soak of two seconds")
    options = parser.parse_args()
    soak = 2.0 if options.quick else options.soak
    gpus = options.gpus.split(",") if options.gpus else _gpus(options.python)
    for gpu in gpus or [""]:
        began = time.monotonic()
        found = measure(options.python, gpu, [other for other in gpus if other != gpu], soak, options.threads)
        print_table(gpu, found)
        figures = {key: found.get(key) for key in ("bf16_tflops", "fp32_tflops", "memory_gbs")}
        print("RESULT", json.dumps({**figures, "seconds": round(time.monotonic() - began, 2)}), flush=True)


def measure(python: Path, gpu: str, peers: list[str], soak: float, threads: int) -> dict[str, Any]:
    device = ["--device", "cuda", "--peers", ",".join(peers)] if gpu else ["--device", "cpu", "--threads", str(threads)]
    done = subprocess.run(
        [python, "-I", PROGRAM, *device, "--soak", str(soak), "--budget", str(soak + 90)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join([gpu, *peers]) if gpu else ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def print_table(gpu: str, found: dict[str, Any]) -> None:
    print(f"{found['device']}{f' ({gpu})' if gpu else ''}, torch {found['torch']}")
    for label, key, unit in ROWS:
        if key in found:
            spread = found.get(key.rpartition("_")[0] + "_spread")
            print(f"  {label:16} {found[key]:10.4g} {unit:8}{f' spread {spread:.1%}' if spread is not None else ''}")
    for size in found.get("sizes", ()):
        print(f"    n = {size['n']:<10} {size['tflops']:10.4g} TFLOP/s  spread {size['spread']:.1%}")
    for peer in found.get("peers", ()):
        print(
            f"  to {peer['uuid']:13} {peer['gbs']:10.4g} GB/s     {'direct' if peer['direct'] else 'through the host'}"
        )
    if soak := found.get("soak"):
        print(f"  soak of {soak['seconds']:.1f} s: rate {-soak['drift']:+.1%}, ", end="")
        print(f"{soak['mismatches']} of {soak['checks']} products differ from the first")
    print(f"  arithmetic {'wrong' if found.get('wrong', 1) else 'right'}; ", end="")
    print(f"{found['seconds']:.1f} s measuring, {found['import_s']:.1f} s importing torch")
    for text in [*found.get("faults", ()), *found["missing"]]:
        print(f"  not measured: {text}")


def _gpus(python: Path) -> list[str]:
    ask = "import torch; print(*range(torch.cuda.device_count()), sep=',')"
    done = subprocess.run([python, "-I", "-c", ask], stdout=subprocess.PIPE, text=True, check=True)
    return [part for part in done.stdout.strip().split(",") if part]


if __name__ == "__main__":
    main()
