"""manage.py export_activity FILE: the history that forecasts are made from, for `backtest` or another installation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.domain.forecast.hazards import DAY_S
from controlplane.planning import history
from controlplane.planning.traces import write


class Command(BaseCommand):
    help = (
        "Writes what was asked of each model as bursts, model,from_s,until_s,requests,input_tokens,output_tokens; "
        "gzipped if FILE ends in .gz."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--days", type=float, default=30.0, help="of the past, up to now (30)")

    def handle(self, *args: Any, **options: Any) -> None:
        now = time.time()
        found = history.requests(now - options["days"] * DAY_S, now, tokens=True)
        if not len(found.at):
            raise CommandError(f"Nothing is on record of the last {options['days']:g} days. No file was written.")
        try:
            write(found, options["file"])
        except OSError as error:
            raise CommandError(f"The file could not be written: {error}") from error
        self.stdout.write(f"Wrote {len(found.at)} bursts of {len(found.models)} models to {options['file']}.")
