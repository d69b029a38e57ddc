"""manage.py import_activity TRACE...: what was asked of models in the past, for forecasts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.problems import DomainError
from controlplane.planning import keeping
from controlplane.planning.backtests import together
from controlplane.planning.traces import TraceError, read

HELP = """Takes request logs and published traces into the history that forecasts are made from. The same forms as
`backtest`; docs/capacity.md tells them. A model's day that was imported before is replaced."""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE")
        parser.add_argument(
            "--shift-to", choices=("none", "now"), default="none",
            help="now: by whole days, so that the trace ends within the last day; for traces that begin at 0 s",
        )  # fmt: skip
        parser.add_argument("--dry-run", action="store_true", help="say what would be imported; import nothing")
        parser.add_argument("--seed", type=int, default=0, help="of moments that a trace of counts does not tell")

    def handle(self, *args: Any, **options: Any) -> None:
        now = time.time()
        try:
            found = [read(path, seed=options["seed"]) for path in options["traces"]]
            requests = together([one.requests for one in found])
            if options["shift_to"] == "now":
                requests = moved(requests, now)
            if options["dry_run"]:
                span = f"{_stamp(requests.at.min())} to {_stamp(requests.until.max())}" if len(requests.at) else "never"
                self.stdout.write(
                    f"Would import {requests.number.sum()} requests for {len(requests.models)} models, {span}."
                )
                return
            made = keeping.save_import(requests, actor=Actor.system("import_activity"), now=now)
        except TraceError as error:
            raise CommandError(f"{error}. Nothing was imported.") from error
        except DomainError as error:
            raise CommandError(str(error)) from error
        for note in dict.fromkeys(one.note for one in found if one.note):
            self.stdout.write(note)
        self.stdout.write(
            f"Imported {made.requests} requests for {made.models} models, {_stamp(made.start)} to {_stamp(made.end)}: "
            f"{made.days} days of models, {made.replaced} of them anew."
        )


def moved(requests: Requests, now: float) -> Requests:
    """By whole days, so that the last request lies within the day before `now` and hours of the day stay."""
    if not len(requests.at):
        return requests
    by = np.floor((now - requests.until.max()) / 86_400.0) * 86_400.0
    return Requests(requests.models, requests.model, requests.at + by, requests.until + by, requests.number)


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
