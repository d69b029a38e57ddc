"""Options and kinds of values that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from controlplane.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
ROLES = ("prefill", "decode", "aggregated")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LENGTH = re.compile(r"(\d{1,9})([smhd])")


def _set_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and (session := ctx.find_object(Session)):
        session.json = True


json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_set_json, is_eager=True, help="Answer as JSON, for programs."
)
reason_option = click.option("-m", "--reason", default="", help="Why; kept in the audit trail.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask, also where engines end.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would happen.")
force_option = click.option("--force", is_flag=True, help="Override the refusals that can be overridden.")


def wait_options(function: F) -> F:
    function = click.option(
        "--timeout", "timeout_s", type=click.FloatRange(min=0), default=900.0, show_default=True,
        help="Seconds to wait at most.",
    )(function)  # fmt: skip
    return click.option("--wait/--no-wait", "wait", default=True, help="Wait until it is so. Default: wait.")(function)


class Length(click.ParamType[int, Any]):
    """A length of time in seconds, as 90s, 30m, 2h or 7d."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _LENGTH.fullmatch(str(value))
        if not found:
            self.fail(f"{value!r} is no length of time. Write 90s, 30m, 2h or 7d.", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


class Share(click.ParamType[float, Any]):
    """A share, as 0.01 or 1%."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is no share. Write 1% or 0.01.", param, ctx)


class Moment(click.ParamType[str, Any]):
    """A moment as ISO 8601: given so, or as the length of time that it lies back."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            if _LENGTH.fullmatch(text):
                at = datetime.now(UTC) - timedelta(seconds=Length().convert(text, param, ctx))
            else:
                at = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no moment. Write 2h, or a time as 2026-01-31T12:00:00Z.", param, ctx)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
