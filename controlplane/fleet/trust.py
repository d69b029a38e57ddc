"""Who may give a deployment the engine arguments that run code or open files of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.audit import roles
from controlplane.audit.services import Actor
from controlplane.domain import trusted_args
from controlplane.domain.types import Problem
from controlplane.fleet.errors import FleetError

ACTION = "deployment.trust"
COLUMNS = ("engine_args", "prefill_args", "decode_args")


class NotTrusted(FleetError):
    """The role would allow the change, but not these arguments."""

    status = 403
    code = "engine-arg-admin"
    title = "Engine arguments for admins"


def require(actor: Actor, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
    """NotTrusted where `actor` is no admin and gives such an argument, or keeps one and changes the model, whose files
    it then runs or reads. `before` is None for a new deployment; both are its columns by name. As with owners, what
    commands and background tasks do is not refused."""
    if actor.user is None or roles.allows(actor.user, ACTION):
        return
    if problems := list(_problems(before, after)):
        raise NotTrusted(problems)


def _problems(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Iterator[Problem]:
    moved = before is not None and before["model_id"] != after["model_id"]
    for column in COLUMNS:
        had: Sequence[str] = () if before is None or moved else before[column]
        for flag in trusted_args.added(had, after[column]):
            yield _moved(flag) if moved else _given(flag)


def _given(flag: str) -> Problem:
    message = f"Only admins may set or change {flag}: {trusted_args.TRUSTED[flag]}. Nothing was changed."
    return Problem("engine-arg-admin", message, f"Leave {flag} as it was, or ask an admin to set it.")


def _moved(flag: str) -> Problem:
    message = f"Only admins may change the model of a deployment with {flag}: {trusted_args.TRUSTED[flag]}."
    fix = f"Nothing was changed. Remove {flag}, or ask an admin to change the model."
    return Problem("engine-arg-admin", message, fix)
