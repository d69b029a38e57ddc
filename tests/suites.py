"""Runs the kinds of tests one after another and says what each needs, took, and which were left out.

usage: python -m tests.suites [unit|postgres|browser|e2e ...]

A kind whose program is missing is left out and said so; with CI set in the environment that is a failure.
Tests that failed get a second try, alone: many run real processes against the clock, and machines are noisy. One that
passes only then is named at the end, to be looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATABASE_TESTS = tuple(
    f"tests/{name}" for name in ("audit", "fleet", "telemetry", "gateway", "api", "web", "management")
)
FAILED, NO_TESTS = 1, 5  # pytest's exit codes
MOST_RETRIED = 5  # more than these is no noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    name: str
    told: str
    arguments: tuple[str, ...]
    present: Callable[[], bool] = lambda: True
    get: str = ""


def has_postgres() -> bool:
    return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))


def has_chromium() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


def has_engine() -> bool:
    return bool(os.environ.get("FOREBAY_VLLM")) or (ROOT / ".venv-engine" / "bin" / "vllm").exists()


SUITES = (
    Suite(
        name="unit",
        told="rules, services, gateway, agent, pages and REST on SQLite",
        arguments=("-m", "not e2e and not browser"),
    ),
    Suite(
        name="postgres",
        told="everything that touches the database, on PostgreSQL",
        arguments=("-m", "not e2e and not browser", "--postgres", *DATABASE_TESTS),
        present=has_postgres,
        get="apt-get install postgresql",
    ),
    Suite(
        name="browser",
        told="the pages in a real Chromium",
        arguments=("-m", "browser"),
        present=has_chromium,
        get="apt-get install chromium",
    ),
    Suite(
        name="e2e",
        told="real vLLM engines through the whole stack",
        arguments=("-m", "e2e"),
        present=has_engine,
        get="make engine",
    ),
)


def main(names: list[str]) -> int:
    chosen = [suite for suite in SUITES if not names or suite.name in names]
    lines, failed = [], False
    for suite in chosen:
        if not suite.present():
            lines.append(f"  left out  {suite.name:<9} {suite.told}; to have it: {suite.get}")
            failed = failed or bool(os.environ.get("CI"))
            continue
        print(f"\n== {suite.name}: {suite.told}", flush=True)
        began = time.monotonic()
        code, noisy = run(suite)
        word = "passed" if code == 0 else "no tests" if code == NO_TESTS else "FAILED"
        failed = failed or code != 0
        lines.append(f"  {word:<9} {suite.name:<9} {time.monotonic() - began:6.0f} s  {suite.told}")
        lines += [f"            at the second try only: {name}" for name in noisy]
    print("\n" + "\n".join(lines), flush=True)
    return int(failed)


def run(suite: Suite) -> tuple[int, list[str]]:
    """Its exit code, and the tests that passed at the second try only."""
    cache = ROOT / "build" / "pytest" / suite.name
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={cache}", *suite.arguments]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != FAILED:
        return code, []
    noted = cache / "v" / "cache" / "lastfailed"
    names = list(json.loads(noted.read_text())) if noted.exists() else []
    if not 0 < len(names) <= MOST_RETRIED:
        return code, []
    print(f"\n== {suite.name}: a second try of {len(names)}", flush=True)
    code = subprocess.run(
        [*command, "--last-failed", "--last-failed-no-failures", "none"], cwd=ROOT, check=False
    ).returncode
    return code, names if code == 0 else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
