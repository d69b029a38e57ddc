"""A trace that somebody sends for a backtest: read and bounded when it comes, judged in the control worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid
from controlplane.planning import backtests, uploads
from controlplane.planning.backtests import Asked, BadBacktest
from controlplane.planning.models import Comparison

MOST_DAYS, MOST_MODELS = 31.0, 2000  # of a trace: 4,500 decisions of each method
NOTHING = "Nothing was asked for."


def columns(name: str, data: bytes, asked: Asked) -> dict[str, Any]:
    """Of a Comparison on it. Raises Invalid, whose message names the line, or what of the question cannot be."""
    try:
        requests = uploads.parse(name, data).requests
    except Invalid as error:
        raise Invalid([_of_here(problem) for problem in error.problems]) from error
    if not len(requests.at):
        raise _refused("no-requests", f"{name} has no requests.", "Send a file with a row a request.")
    days = float(max(requests.at[-1], requests.until.max()) - requests.at[0]) / DAY_S
    if days > MOST_DAYS or len(requests.models) > MOST_MODELS:
        message = (
            f"{name} has {len(requests.models)} models over {days:.1f} days; at most {MOST_MODELS} and {MOST_DAYS:g}."
        )
        raise _refused("too-large", message, "Send a part of it, or use manage.py backtest.")
    try:
        backtests.check(requests, asked)
    except BadBacktest as error:
        raise _refused("backtest", f"{str(error)[:1].upper()}{str(error)[1:]}.", "Ask for what this can be.") from error
    return {"trace_name": name, "question": asdict(asked), "trace": data}


def judged(row: Comparison, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """As backtests.as_json. Raises BadBacktest."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in row.question.items()}
    trace = uploads.parse(row.trace_name, bytes(row.trace or b""))
    notes = (trace.note,) if trace.note else ()
    return backtests.as_json(backtests.of_requests(trace.requests, Asked(**fields), (row.trace_name,), notes, on_step))


def _of_here(problem: Problem) -> Problem:
    message = problem.message.removesuffix("Nothing was imported.") + NOTHING
    return replace(problem, message=message, fix=problem.fix.replace("import_activity", "backtest"))


def _refused(code: str, message: str, fix: str) -> Invalid:
    return Invalid([Problem(code, f"{message} {NOTHING}", fix)])
