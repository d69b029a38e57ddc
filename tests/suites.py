"""Runs the kinds of tests one after another and says what each needs, took, and which were left out.

usage: python -m tests.suites [unit|agent|postgres|browser|e2e ...]

A kind whose program is missing is left out and said so; with CI set in the environment that is a failure. Where there
are two cores, the first three run at the same time and then the last two: unit and postgres keep one busy each, the
others mostly wait for processes they started. The first one's output shows, that of the others follows.
Tests that failed get a second try, alone: many run real processes against the clock, and machines are noisy. One that
passes only then is named at the end, to be looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATABASE_TESTS = tuple(
    f"tests/{name}"
    for name in (
        "alerts",
        "audit",
        "bench",
        "fleet",
        "teams",
        "telemetry",
        "gateway",
        "planning",
        "scaling",
        "costs",
        "api",
        "web",
        "management",
    )
)
FAILED, NO_TESTS = 1, 5  # pytest's exit codes
AGENT_TESTS = "tests/workers"
# Who may do what: two thousand questions whose answers do not depend on the database.
ROLE_TESTS = ("tests/api/test_permissions.py", "tests/web/test_access.py")
AT_ONCE = (("unit", "postgres", "agent"), ("e2e", "browser"))
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
        told="rules, services, gateway, pages and REST on SQLite",
        arguments=("-m", "not e2e and not browser", f"--ignore={AGENT_TESTS}"),
    ),
    Suite(
        name="agent",
        told="the agent of a node and its engines, as processes",
        arguments=("-m", "not e2e and not browser", AGENT_TESTS),
    ),
    Suite(
        name="postgres",
        told="everything that touches the database, on PostgreSQL",
        arguments=(
            "-m",
            "not e2e and not browser",
            "--postgres",
            *DATABASE_TESTS,
            *(f"--ignore={path}" for path in ROLE_TESTS),
        ),
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
    missing = [suite for suite in chosen if not suite.present()]
    lines = [f"  left out  {suite.name:<9} {suite.told}; to have it: {suite.get}" for suite in missing]
    failed = bool(missing and os.environ.get("CI"))
    for together in grouped([suite for suite in chosen if suite not in missing]):
        runs = [Run(suite, shown=suite is together[0]) for suite in together]
        while sum(not one.is_over() for one in runs):
            time.sleep(0.2)
        for one in runs:
            code = one.finish()
            failed = failed or code != 0
            word = "passed" if code == 0 else "no tests" if code == NO_TESTS else "FAILED"
            lines.append(f"  {word:<9} {one.suite.name:<9} {one.seconds:6.0f} s  {one.suite.told}")
            lines += [f"            at the second try only: {name}" for name in one.noisy]
    print("\n" + "\n".join(lines), flush=True)
    return int(failed)


def grouped(suites: list[Suite]) -> list[list[Suite]]:
    """Those that may run at the same time."""
    if (os.cpu_count() or 1) < 2:
        return [[suite] for suite in suites]
    groups = [[suite for name in names for suite in suites if suite.name == name] for names in AT_ONCE]
    return [group for group in groups if group]


class Run:
    """One suite, begun at once; `finish` is called when it and all that ran beside it are over."""

    def __init__(self, suite: Suite, *, shown: bool) -> None:
        self.suite, self.noisy, self.seconds = suite, [], 0.0
        self._cache = ROOT / "build" / "pytest" / suite.name
        shutil.rmtree(self._cache, ignore_errors=True)
        self._command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={self._cache}", *suite.arguments]
        self._output = None if shown else tempfile.TemporaryFile()  # noqa: SIM115 - closed by `finish`
        self._began = time.monotonic()
        print(f"\n== {suite.name}: {suite.told}{'' if shown else ' (its output follows)'}", flush=True)
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=self._output, stderr=subprocess.STDOUT)

    def is_over(self) -> bool:
        if self._process.poll() is None:
            return False
        self.seconds = self.seconds or time.monotonic() - self._began
        return True

    def finish(self) -> int:
        """Show what it said, and give those that failed a second try; the exit code."""
        code = self._process.returncode
        if self._output is not None:
            print(f"\n== {self.suite.name}", flush=True)
            self._output.seek(0)
            shutil.copyfileobj(self._output, sys.stdout.buffer)
            self._output.close()
        return self._again() if code == FAILED else code

    def _again(self) -> int:
        noted = self._cache / "v" / "cache" / "lastfailed"
        names = list(json.loads(noted.read_text())) if noted.exists() else []
        if not 0 < len(names) <= MOST_RETRIED:
            return FAILED
        print(f"\n== {self.suite.name}: a second try of {len(names)}", flush=True)
        command = [*self._command, "--last-failed", "--last-failed-no-failures", "none"]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        self.noisy = names if code == 0 else []
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
