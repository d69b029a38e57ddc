"""What a refusal looks like, everywhere: a code for programs, a message and a way out for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is refused, and what to do. `forceable`: a person who knows better may go on."""

    code: str
    message: str
    fix: str = ""
    forceable: bool = False

    def to_dict(self) -> dict[str, str | bool]:
        return {"code": self.code, "message": self.message, "fix": self.fix, "forceable": self.forceable}


class DomainError(Exception):
    """A rule was asked something it can only refuse."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class FactsError(DomainError):
    """A model's files do not tell what it is."""

    def __init__(self, message: str, fix: str = "", code: str = "model-unreadable") -> None:
        super().__init__(Problem(code, message, fix))
        self.message = message
        self.fix = fix
