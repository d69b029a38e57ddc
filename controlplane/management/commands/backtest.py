"""Judge forecasts of the number of active models on a trace, without a look ahead."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.domain.forecast.methods import NAMES
from controlplane.planning import backtest_page
from controlplane.planning.backtests import Asked, BadBacktest, as_json, backtest, told
from controlplane.planning.traces import TraceError

BAR = 30


class Command(BaseCommand):
    requires_system_checks: list[str] = []
    help = (
        "Judge forecasts of active models on traces (CSV or JSON lines, gzipped or not; known by the header: "
        "t_s,model,duration_s | client,t_s,requests,cv,iat_dist,p1,p2 | app,func,end_timestamp,duration | "
        "model,from_s,until_s,requests). Several files are one trace."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("trace", nargs="+", type=Path)
        parser.add_argument("--tau", type=float, default=300.0, help="keep-alive in seconds")
        parser.add_argument("--horizon", type=float, default=600.0, help="seconds that a reserve is for")
        parser.add_argument("--step", type=float, default=600.0, help="seconds between decisions")
        parser.add_argument("--quantiles", type=_numbers, default=(0.95, 0.99), help="as .95,.99")
        parser.add_argument("--warmup-days", type=float, help="that methods are asked before the judged days (all)")
        parser.add_argument("--judge-from-day", type=float, help="counted from the first midnight (half of the trace)")
        parser.add_argument("--methods", type=_names, default=NAMES, help=f"of {','.join(NAMES)}")
        parser.add_argument("--seed", type=int, default=0, help="of what a trace does not tell, and of the plays")
        parser.add_argument(
            "--outage", type=_span, action="append", default=[], help="FROM:TO seconds without a record"
        )
        parser.add_argument("--json", type=Path, help="write the result there")
        parser.add_argument("--html", type=Path, help="write a page with figures there")

    def handle(self, *args: Any, **options: Any) -> None:
        asked = Asked(
            tau_s=options["tau"],
            horizon_s=options["horizon"],
            levels=options["quantiles"],
            step_s=options["step"],
            warmup_days=options["warmup_days"],
            judge_from_day=options["judge_from_day"],
            methods=options["methods"],
            seed=options["seed"],
            outages=tuple(options["outage"]),
        )
        try:
            found = backtest(options["trace"], asked, self._progress())
        except (TraceError, BadBacktest) as error:
            raise CommandError(f"{error}. Nothing was written.") from error
        result = as_json(found)
        self._table(result)
        try:
            if options["json"]:
                options["json"].write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            if options["html"]:
                options["html"].write_text(backtest_page.page(result, told(found)), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{error}. The result above was not written.") from error

    def _progress(self) -> Any:
        """A bar on a terminal, nothing elsewhere."""
        last = 0.0

        def show(what: str, done: int, of: int) -> None:
            nonlocal last
            if not self.stderr.isatty() or (time.monotonic() - last < 0.1 and done < of):
                return
            last = time.monotonic()
            full = BAR * done // max(1, of)
            end = "\n" if done >= of else ""
            self.stderr.write(
                f"\r{what:40.40} [{'#' * full}{' ' * (BAR - full)}] {100 * done // max(1, of):3}%", ending=end
            )
            self.stderr.flush()

        return show

    def _table(self, result: dict[str, Any]) -> None:
        levels = list(next(iter(result["methods"].values()))["coverage"])
        keys = ("coverage", "coverage_busy", "mean_reserve", "pinball", "cold_per_activation", "held_over_used")
        heads = ("coverage", "busy", "reserve", "pinball", "cold", "held/used")
        peak = "not known" if result["mean_peak"] is None else f"{result['mean_peak']:.1f}"
        self.stdout.write(f"{result['models']} models, {result['windows']} windows, mean peak {peak}")
        for note in result["notes"]:
            self.stdout.write(note)
        top = "".join(f"{f'{head} {level}':>15}" for head in heads for level in levels)
        self.stdout.write(f"{'':24}{top}{'ms':>8}")
        for score in result["methods"].values():
            cells = "".join(
                f"{'-' if score[key][level] is None else score[key][level]:>15}" for key in keys for level in levels
            )
            self.stdout.write(f"{score['name']:24}{cells}{score['ms_per_decision']:>8}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ArgumentTypeError(f"numbers with commas between them, as .95,.99; not {text}") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _span(text: str) -> tuple[float, float]:
    begin, _, end = text.partition(":")
    try:
        return float(begin), float(end)
    except ValueError as error:
        raise ArgumentTypeError(f"FROM:TO in seconds from the first midnight, as 86400:90000; not {text}") from error
