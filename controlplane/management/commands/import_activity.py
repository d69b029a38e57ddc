"""manage.py import_activity TRACE...: what was asked of models in the past, for forecasts."""

from __future__ import annotations

import os
import time
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.problems import DomainError
from controlplane.planning import keeping, prometheus
from controlplane.planning.backtests import together
from controlplane.planning.traces import TraceError, read
from controlplane.planning.uploads import moved

HELP = """Takes request logs and published traces into the history that forecasts are made from, or what a Prometheus
recorded. The same forms as `backtest`; docs/capacity.md tells them. A model's day that was imported before is replaced.
"""
TOKEN = "FOREBAY_PROMETHEUS_TOKEN"  # noqa: S105 - its name
QUERY = "sum by (model_name) (increase(vllm:request_success_total[1m]))"
Spans = Sequence[tuple[float, float]]


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE")
        parser.add_argument(
            "--shift-to", choices=("none", "now"), default="none",
            help="now: by whole days, so that the trace ends within the last day; for traces that begin at 0 s",
        )  # fmt: skip
        parser.add_argument("--dry-run", action="store_true", help="say what would be imported; import nothing")
        parser.add_argument("--seed", type=int, default=0, help="of moments that a trace of counts does not tell")
        parser.add_argument(
            "--prometheus", metavar="URL", help=f"ask it instead of reading a file; {TOKEN} is its bearer token"
        )
        parser.add_argument(
            "--query", default=QUERY, help="the number of requests in each step, by model, such as %(default)s"
        )
        parser.add_argument("--model-label", default="model_name", help="that names the model (%(default)s)")
        parser.add_argument("--days", type=_positive, default=30.0, help="of the past, up to now (30)")
        parser.add_argument("--step", type=_positive, default=60.0, help="seconds, as in the query's range (60)")

    def handle(self, *args: Any, **options: Any) -> None:
        now = time.time()
        if bool(options["traces"]) == bool(options["prometheus"]):
            raise CommandError("Give files, or --prometheus URL, and not both. Nothing was imported.")
        try:
            requests, spans, notes = self._asked(options, now) if options["prometheus"] else self._read(options, now)
            if options["dry_run"]:
                return self._would(requests)
            actor = Actor.system("import_activity")
            made = keeping.save_import(requests, actor=actor, now=now, spans=spans)
        except TraceError as error:
            raise CommandError(f"{error}. Nothing was imported.") from error
        except DomainError as error:
            raise CommandError(str(error)) from error
        for note in notes:
            self.stdout.write(note)
        self.stdout.write(
            f"Imported {made.requests} requests for {made.models} models, {_stamp(made.start)} to {_stamp(made.end)}: "
            f"{made.days} days of models, {made.replaced} of them anew."
        )
        return None

    def _read(self, options: dict[str, Any], now: float) -> tuple[Requests, Spans, list[str]]:
        found = [read(path, seed=options["seed"]) for path in options["traces"]]
        requests = together([one.requests for one in found])
        if options["shift_to"] == "now":
            requests = moved(requests, now)
        return requests, (), list(dict.fromkeys(one.note for one in found if one.note))

    def _asked(self, options: dict[str, Any], now: float) -> tuple[Requests, Spans, list[str]]:
        step_s = options["step"]
        end = now - now % step_s
        wanted = prometheus.Wanted(
            options["prometheus"], options["query"], end - options["days"] * DAY_S, end, step_s,
            options["model_label"], os.environ.get(TOKEN, ""),
        )  # fmt: skip
        found = prometheus.fetch(wanted)
        return found.requests, found.spans, []

    def _would(self, requests: Requests) -> None:
        span = f"{_stamp(requests.at.min())} to {_stamp(requests.until.max())}" if len(requests.at) else "never"
        models = len(set(requests.model.tolist()))
        self.stdout.write(f"Would import {requests.number.sum()} requests for {models} models, {span}.")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"a number above 0; not {text}")
    return value


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
