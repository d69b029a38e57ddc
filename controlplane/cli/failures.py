"""What ends a command early: an exit code, what is wrong, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import click

from controlplane.cli.text import plain


class Exit(IntEnum):
    """docs/terminal.md promises these to scripts."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    ACCESS = 3
    CONFLICT = 4
    UNREACHABLE = 5
    NOT_REACHED = 6
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Problem:
    message: str
    fix: str = ""
    forceable: bool = False
    code: str = ""  # the server's word for it


class Failure(Exception):
    """Shown on standard error: as lines for people, or as one JSON object where --json was asked for."""

    def __init__(
        self,
        exit_code: Exit,
        problems: Iterable[Problem],
        *,
        request_id: str = "",
        changes: Iterable[dict[str, Any]] = (),
    ) -> None:
        self.problems = tuple(problems)
        self.changes = tuple(changes)  # what others changed meanwhile, newest first
        self.exit_code = exit_code
        self.request_id = request_id
        super().__init__("; ".join(problem.message for problem in self.problems))

    def show(self, *, as_json: bool) -> None:
        click.echo(self._json() if as_json else self._lines(), err=True)

    def _lines(self) -> str:
        lines = []
        for problem in self.problems:
            lines.append(f"Error: {plain(problem.message)}")
            if problem.fix:
                lines.append(f"  Fix: {plain(problem.fix)}")
            if problem.forceable:
                lines.append("  --force overrides this.")
        return "\n".join(lines)

    def _json(self) -> str:
        problems = [
            {"message": problem.message, "fix": problem.fix, "forceable": problem.forceable}
            for problem in self.problems
        ]
        error: dict[str, Any] = {
            "exit": int(self.exit_code),
            "problems": problems,
            "request_id": self.request_id or None,
        }
        if self.changes:
            error["changes"] = list(self.changes)
        return json.dumps({"error": error})


def failure(exit_code: Exit, message: str, fix: str = "") -> Failure:
    """One about a single thing."""
    return Failure(exit_code, [Problem(message, fix)])
