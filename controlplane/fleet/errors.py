"""What the fleet refuses, and why. Faces turn each into a problem document with `status`."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.domain.types import Problem


class FleetError(Exception):
    """Nothing was changed. `problems` say what is wrong and what to do about it."""

    status = 400
    code = "fleet-error"
    title = "The request cannot be carried out"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


class Invalid(FleetError):
    """The values themselves are wrong, whatever the state of the fleet."""

    status = 400
    code = "invalid"
    title = "The values are not valid"


class Refused(FleetError):
    """The rules refuse it in the present state of the fleet."""

    status = 409
    code = "refused"
    title = "The fleet's rules refuse this"

    @property
    def forceable(self) -> bool:
        """Whether every problem is one that `force` overrides."""
        return bool(self.problems) and all(problem.forceable for problem in self.problems)


class Conflict(FleetError):
    """Somebody else changed it first."""

    status = 409
    code = "conflict"
    title = "Changed by somebody else"

    def __init__(self, message: str, fix: str = "Look at the present state and try again.") -> None:
        super().__init__([Problem(code=self.code, message=message, fix=fix)])


class NotFound(FleetError):
    """There is no such row."""

    status = 404
    code = "not-found"
    title = "Not found"

    def __init__(self, what: str, key: object) -> None:
        message = f"There is no {what} {key}."
        super().__init__([Problem(code=self.code, message=message, fix="It may have been removed: list them again.")])


class UplinkError(Exception):
    """An answer to an agent that is not what it asked for. `code` is the problem type the agent acts on."""

    def __init__(self, code: str, status: int, message: str) -> None:
        self.code, self.status, self.message = code, status, message
        super().__init__(message)


class JoinRefused(UplinkError):
    """The host may not join."""


class IdentityConflict(UplinkError):
    """Another agent reports as this node: the one that gets this stops acting."""

    def __init__(self, message: str) -> None:
        super().__init__("identity-conflict", 409, message)


class UnknownNode(UplinkError):
    """No node has this token (any more)."""

    def __init__(self) -> None:
        message = "This node token is not known here: the node was removed, or has re-joined."
        super().__init__("unknown-token", 401, message)


class BadReport(UplinkError):
    """The report cannot be about this node."""

    def __init__(self, message: str) -> None:
        super().__init__("bad-report", 400, message)
