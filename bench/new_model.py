"""What one more model costs the planner of a fleet of a thousand: a look in which a model is asked for for the first
time, beside one like any other and the one that a worker begins with.

    python -m bench.new_model [TRACE] [--models 1000] [--quick] [--json OUT]

TRACE: nine days of a model service's clients standing in for models (ServeGen's windows of counts), of which the
models and sixteen days are made over and over, as in bench.history_year. Each look is at a whole hour, when all
horizons are due, by the code that the control worker runs: forecasts, what is over, what-if curves and habits.
Seconds are of the processor, of this process; reads are of the record of demand. The database is SQLite in a file.
--quick: 50 models, and a day that is told anew instead of two and eight.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.history_year import DAY_S, FIRST, TRACE, database, fill

DAYS = 16
HOUR_S = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as home:
        database(Path(home), postgres=False)
        result = measure(options.trace, 50 if options.quick else options.models, quick=options.quick)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    print("RESULT " + json.dumps(result))


def measure(trace: Path, models: int, *, quick: bool) -> dict[str, Any]:
    from controlplane.planning.forecasting import PACES, Forecasting, Pace
    from controlplane.planning.models import RecordedSpan
    from controlplane.planning.traces import read

    requests = read(trace).requests
    fill(requests, int(requests.at.max() // DAY_S) + 1, models, DAYS)
    start = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp()
    now = start + (DAYS - 0.5) * DAY_S
    RecordedSpan.objects.create(start=_moment(start), end=_moment(start + DAYS * DAY_S), source="gateway")
    paces = {horizon: Pace(pace.step_s, 1) for horizon, pace in PACES.items()} if quick else PACES
    teller, result = Forecasting(paces), dict[str, Any](models=models)
    for hour, (name, is_new) in enumerate((("begin", False), ("usual", False), ("new", True), ("usual_again", False))):
        at = now + hour * HOUR_S
        if is_new:
            ask(at - 300.0)
        took, reads = look(teller, at)
        result |= {f"{name}_s": round(took, 2), f"{name}_reads": reads}
        print(f"  {name}: {took:.2f} s, {reads} reads")
    return result


def look(teller: Any, at: float) -> tuple[float, int]:
    """Seconds of the processor, and how often the record was read."""
    from django.db import connection

    from controlplane.planning import habits, standing
    from controlplane.planning.history import Reading

    reads = 0

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        nonlocal reads
        reads += 'FROM "gateway_demandminute"' in sql and '"arrivals"' in sql
        return execute(sql, *rest)

    began = time.process_time()
    with connection.execute_wrapper(count):
        reading = Reading(at)
        teller.tick(at, reading)
        standing.refresh(at, reading)
        habits.refresh(at, reading)
    return time.process_time() - began, reads


def ask(at: float) -> None:
    """A request for a model that there was none for before."""
    from controlplane.gateway.models import DemandMinute

    DemandMinute.objects.create(deployment="a-new-model", minute=_moment(at // 60 * 60), arrivals=1)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


if __name__ == "__main__":
    main()
