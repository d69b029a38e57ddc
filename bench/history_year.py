"""What a year of demand of a thousand models takes: bytes in the database, and the time to write it and read it back.

    python -m bench.history_year [TRACE] [--models 1000] [--days 365] [--postgres] [--quick] [--json OUT]

TRACE: nine days of a model service's clients standing in for models (ServeGen's windows of counts). There are neither
as many models nor as many days of it: the models are its clients over and over, and the year its days. Tokens, which
it has not, are drawn. A day is counted by the minute, as a gateway counts it, and packed as the control worker packs
it; the same days as an import keeps them, to a tenth of a second, stand beside. The database is SQLite in a file, or
with --postgres a cluster of its own. --quick: 100 models, 30 days.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

TRACE = Path(__file__).parents[2] / "shared" / "traces" / "servegen_clients_10min.csv.gz"
DAY_S, MINUTES = 86_400, 1440
PROMPT, COMPLETION = 1200, 300  # mean tokens of a request, drawn
FIRST = date(2025, 1, 1)
READ_DAYS = (9, 31)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    models, days = (100, 30) if options.quick else (options.models, options.days)
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as home:
        cluster = database(Path(home), postgres=options.postgres)
        try:
            result = measure(options.trace, models, days)
        finally:
            if cluster is not None:
                cluster.stop()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    print("RESULT " + json.dumps(result))


def database(home: Path, *, postgres: bool) -> Any:
    """An empty one, migrated; its cluster, where it has one."""
    os.environ |= {
        "FOREBAY_HOME": str(home), "DJANGO_SETTINGS_MODULE": "controlplane.settings", "FOREBAY_LOG_LEVEL": "ERROR",
    }  # fmt: skip
    os.environ.pop("FOREBAY_DATABASE_URL", None)
    from django.conf import settings

    cluster = None
    if postgres:
        from tests.postgres import start

        cluster = start()
        settings.DATABASES["default"] = cluster.django_database()
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return cluster


def measure(trace: Path, models: int, days: int) -> dict[str, Any]:
    from controlplane.planning import history
    from controlplane.planning.models import ActivityDay
    from controlplane.planning.traces import read

    requests = read(trace).requests
    span = int(requests.at.max() // DAY_S) + 1
    print(f"{trace.name}: {len(requests.models)} clients, {span} days; {models} models, {days} days are made of them")
    exact = size()
    keep(requests)
    exact, exact_rows = size() - exact, ActivityDay.objects.count()
    ActivityDay.objects.all().delete()
    before, began = size(), time.monotonic()
    fill(requests, span, models, days)
    count, wrote = ActivityDay.objects.count(), time.monotonic() - began
    total = size() - before
    result: dict[str, Any] = {
        "models": models, "days": days, "model_days": count, "database_mb": round(total / 1e6, 1),
        "bytes_per_model_day": round(total / count), "write_s": round(wrote, 1),
        "import_bytes_per_model_day": round(exact / exact_rows),
    }  # fmt: skip
    end = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp() + days * DAY_S
    for last in READ_DAYS:
        began = time.monotonic()
        found = history.requests(end - last * DAY_S, end)
        result[f"read_{last}_days_s"] = round(time.monotonic() - began, 2)
        result[f"read_{last}_days_rows"] = len(found.at)
        del found
    result["memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    began = time.monotonic()
    for at in spans(end - days * DAY_S, end):
        history.requests(*at)
    result["read_all_s"] = round(time.monotonic() - began, 1)
    return result


def fill(requests: Any, span: int, models: int, days: int) -> None:
    """Days of `models` made of the `span` days of the trace's clients."""
    from controlplane.planning.models import ActivityDay

    packed = [pack(requests, day) for day in range(span)]
    for day in range(days):
        rows = [
            ActivityDay(
                model=f"model-{model:04d}", day=FIRST + timedelta(days=day), source=ActivityDay.Source.GATEWAY,
                bursts=bursts, requests=number,
            )
            for model in range(models)
            if (one := packed[day % span].get(model % len(requests.models))) is not None
            for bursts, number in [one]
        ]  # fmt: skip
        ActivityDay.objects.bulk_create(rows, 500)


def keep(requests: Any) -> None:
    """As an import keeps it."""
    from controlplane.audit.services import Actor
    from controlplane.domain.forecast.activity import Requests
    from controlplane.planning import keeping

    start = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    moved = Requests.of(
        requests.models, requests.model, requests.at + start, requests.until + start, requests.number
    )  # fmt: skip
    keeping.save_import(moved, actor=Actor.system("bench"), now=time.time())


def pack(requests: Any, day: int) -> dict[int, tuple[bytes, int]]:
    """(bytes, requests) of each model of this day of the trace that was asked for, counted by the minute."""
    from controlplane.planning.packing import Packed
    from controlplane.planning.packing import pack as pack_day

    random = np.random.default_rng(day)
    part = requests.within(day * DAY_S, (day + 1) * DAY_S)
    key = part.model * MINUTES + ((part.at - day * DAY_S) // 60).astype(np.int64)
    places, inverse = np.unique(key, return_inverse=True)
    number = np.bincount(inverse, part.number).astype(np.int64)
    model, minute = places // MINUTES, (places % MINUTES) * 60.0
    tokens = [
        np.rint(number * random.gamma(2.0, mean / 2.0, len(number))).astype(np.int64) for mean in (PROMPT, COMPLETION)
    ]
    found = {}
    for one in np.unique(model):
        mine = slice(*np.searchsorted(model, [one, one + 1]))
        packed = Packed(minute[mine], minute[mine] + 60.0, number[mine], tokens[0][mine], tokens[1][mine])
        found[int(one)] = (pack_day(packed), int(number[mine].sum()))
    return found


def spans(start: float, end: float) -> Iterator[tuple[float, float]]:
    """Nine days each: what forecasts read at once."""
    step = READ_DAYS[0] * DAY_S
    return ((at, min(at + step, end) - 1.0) for at in np.arange(start, end, step).tolist())


def size() -> int:
    """Bytes of the database, what is free in it aside."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM FULL planning_activityday")
            cursor.execute("SELECT pg_total_relation_size('planning_activityday')")
            return int(cursor.fetchone()[0])
        cursor.execute(
            "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)"
        )
        (pages,) = cursor.fetchone()
        cursor.execute("PRAGMA page_size")
        return int(pages) * int(cursor.fetchone()[0])


if __name__ == "__main__":
    main()
