"""Asks one address again and again over one kept connection, and says what that took: here or in another network.

    python -m bench._asking URL COUNT PID [HEADER VALUE]

PID is the process that answers; its CPU counts with that of its children, less what they take without a request.
"""

from __future__ import annotations

import json
import sys
import time

import httpx
import psutil

QUIET_S = 2.0


def ask(url: str, count: int, pid: int, headers: dict[str, str]) -> dict[str, float]:
    """Times in milliseconds; CPU of one request; kilobytes of one answer."""
    took: list[float] = []
    with httpx.Client(timeout=60, headers=headers) as client:
        for _ in range(3):
            client.get(url).raise_for_status()
        before = cpu_of(pid)
        time.sleep(QUIET_S)
        idle = (cpu_of(pid) - before) / QUIET_S
        before, began = cpu_of(pid), time.perf_counter()
        for _ in range(count):
            at = time.perf_counter()
            reply = client.get(url)
            took.append((time.perf_counter() - at) * 1000)
            reply.raise_for_status()
        spent = cpu_of(pid) - before - idle * (time.perf_counter() - began)
    took.sort()
    return {
        "p50_ms": share(took, 0.5),
        "p99_ms": share(took, 0.99),
        "max_ms": took[-1],
        "cpu_ms": max(0.0, spent) * 1000 / count,
        "kb": len(reply.content) / 1000,
    }


def cpu_of(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(
        times.user + times.system for one in (root, *root.children(recursive=True)) for times in [one.cpu_times()]
    )


def share(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))]


if __name__ == "__main__":
    url, count, pid, *rest = sys.argv[1:]
    print(json.dumps(ask(url, int(count), int(pid), dict(zip(rest[::2], rest[1::2], strict=True)))))
