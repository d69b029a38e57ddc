"""Which method forecasts best here: all of them on the installation's own history, once a day and when somebody asks.

The work takes minutes and is done in the control worker, beside all else; a request only asks for it and looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import Q, QuerySet

from controlplane.audit.services import Actor, record
from controlplane.domain.forecast.backtest import run
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.forecast.history import History
from controlplane.domain.forecast.methods import DEFAULT, NAMES, make
from controlplane.fleet.errors import Conflict
from controlplane.planning import history as past
from controlplane.planning import policy, sent_traces
from controlplane.planning.backtests import Asked, Backtest, BadBacktest, as_json
from controlplane.planning.models import Comparison

LEVELS = (0.95, 0.99)
HORIZON_S = STEP_S = 600.0
JUDGED_DAYS, WARM_UP_DAYS = 3.0, 4.0  # at most
LEAST_DAYS = 1.0  # of record
LOOK_BACK_DAYS = 7.0
KEPT = 30  # of own history, and as many of traces
AGAIN = timedelta(days=1)
LOST = timedelta(seconds=120)  # after so long without a beat nobody works on it any more
BEAT_S = 2.0
BETTER = 0.05  # so much less, at equal coverage, another method has to hold before it takes the place of the default
LEAST_WINDOWS = 144  # judged, before it may


def ask(*, actor: Actor, now: float, on: Mapping[str, Any] | None = None) -> Comparison:
    """To be begun within a minute. `on`: columns of a trace that was sent (sent_traces).
    Raises Conflict where one is asked for or in work already."""
    moment = datetime.fromtimestamp(now, UTC)
    with transaction.atomic():
        if _open(moment).exists():
            raise Conflict("A comparison is asked for or in work already.", "Look at how far it is.")
        row = Comparison.objects.create(asked_at=moment, asked_by=actor.name[:150], **(on or {}))
        record(actor, "compare-methods", row)
    return row


def own() -> QuerySet[Comparison]:
    """Of this installation's own history, newest first: what the choice of a method goes by."""
    return Comparison.objects.filter(trace_name="")


def compare_if_due(now: float) -> Comparison | None:
    """Take on what is asked for and not in work, or what a day asks for; the row once it is done."""
    moment = datetime.fromtimestamp(now, UTC)
    row = Comparison.objects.filter(ended_at=None).order_by("asked_at").first()
    if row is None and _day_is_over(moment, now):
        row = Comparison.objects.create(asked_at=moment, asked_by="daily")
    if row is None or not _taken(row, moment):
        return None
    try:
        beat = _beating(row)
        row.result = sent_traces.judged(row, on_step=beat) if row.trace_name else compare(now, on_step=beat)
    except (NotEnough, BadBacktest) as error:
        row.error = str(error)
    except Exception as error:
        row.error = f"{type(error).__name__}: {error}"[:500]
        raise
    finally:
        row.ended_at = datetime.now(UTC)
        row.trace = None
        row.save(update_fields=["result", "error", "ended_at", "trace"])
    for kind in (own(), Comparison.objects.exclude(trace_name="")):
        kind.exclude(pk__in=list(kind.values_list("pk", flat=True)[:KEPT])).delete()
    return row


class NotEnough(Exception):
    """There is too little on record; the message says how much there is to be."""


def compare(now: float, on_step: Callable[[int, int], None] = lambda done, of: None) -> dict[str, Any]:
    """As backtests.as_json, of the last days. Raises NotEnough."""
    begin, keep_alive_s = past.first(), float(policy.current().keep_alive_s)
    if begin is None or now - begin < LEAST_DAYS * DAY_S:
        raise NotEnough(f"Less than {LEAST_DAYS:g} day is on record: too little to compare methods by.")
    known_from = begin + keep_alive_s
    judge_from = _step(max(now - JUDGED_DAYS * DAY_S, known_from + (now - known_from) / 2))
    first = _step(max(judge_from - WARM_UP_DAYS * DAY_S, known_from))
    since = first - LOOK_BACK_DAYS * DAY_S
    log, gaps = past.requests(since, now), past.outages(since, now)
    if not len(log.at):
        raise NotEnough("No request is on record of the last days: there is nothing to compare methods by.")
    seen = History(log, keep_alive_s, HORIZON_S, first, now, STEP_S, gaps)
    outcome = run(seen, make(NAMES, LEVELS), LEVELS, judge_from=judge_from, on_step=on_step)
    asked = Asked(keep_alive_s, HORIZON_S, LEVELS, STEP_S)
    return as_json(Backtest(asked, outcome, judge_from, ("own history",)))


def chosen() -> str:
    """The method that forecasts, by its name: the default, unless another one did clearly better here."""
    newest = own().exclude(result=None).first()
    return DEFAULT if newest is None else choice(newest.result)


def choice(result: dict[str, Any]) -> str:
    """By the mean reserve at the highest level once all are shifted to cover just it."""
    held = {name: reserve for name in NAMES if (reserve := equal_reserve(result, name)) is not None}
    mine = held.get(DEFAULT)
    if mine is None or result["windows"] < LEAST_WINDOWS:
        return DEFAULT
    least = min(held, key=lambda name: held[name])
    return least if held[least] < (1.0 - BETTER) * mine else DEFAULT


def equal_reserve(result: dict[str, Any], name: str) -> float | None:
    score = result["methods"].get(name)
    return None if score is None else score["mean_reserve_at_equal_coverage"].get(f"{LEVELS[-1]:g}")


def state_of(row: Comparison, now: float) -> str:
    """asked -> running -> done or failed; lost, where who worked on it is gone: it is taken on anew."""
    if row.ended_at is not None:
        return "failed" if row.error else "done"
    if row.beat_at is None:
        return "asked"
    return "lost" if now - row.beat_at.timestamp() > LOST.total_seconds() else "running"


def _open(moment: datetime) -> Any:
    return Comparison.objects.filter(ended_at=None).filter(Q(beat_at=None) | Q(beat_at__gt=moment - LOST))


def _day_is_over(moment: datetime, now: float) -> bool:
    begin = past.first()
    if begin is None or now - begin < LEAST_DAYS * DAY_S:
        return False
    return not own().filter(asked_at__gt=moment - AGAIN).exists()


def _taken(row: Comparison, moment: datetime) -> bool:
    """Of several workers one gets it."""
    free = Comparison.objects.filter(pk=row.pk, ended_at=None).filter(Q(beat_at=None) | Q(beat_at__lte=moment - LOST))
    keep_alive_s = round(row.question["tau_s"]) if row.trace_name else policy.current().keep_alive_s
    return bool(free.update(begun_at=moment, beat_at=moment, done=0, keep_alive_s=keep_alive_s))


def _beating(row: Comparison) -> Callable[[int, int], None]:
    last = time.monotonic()

    def on_step(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last < BEAT_S:
            return
        last = time.monotonic()
        Comparison.objects.filter(pk=row.pk).update(beat_at=datetime.now(UTC), done=done, of=of)

    return on_step


def _step(at: float) -> float:
    return float(np.ceil(at / STEP_S) * STEP_S)
