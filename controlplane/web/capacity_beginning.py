"""What the Capacity page says before there is a forecast: step by step, what is missing and when it comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from controlplane.planning.beginning import Beginning

DAY_AHEAD, SOON = 86_400, 600
LONG_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Step:
    """`state`: done, now, later or bad."""

    state: str
    title: str
    text: str


def steps(found: Beginning, now: float) -> list[Step]:
    return list(_steps(found, now))


def _steps(found: Beginning, now: float) -> Iterator[Step]:
    yield _record(found, now)
    yield _first(found, now)
    if found.what_if_at is None or found.what_if_at > now:
        at = "" if found.what_if_at is None else f", at {_clock(found.what_if_at)}"
        yield Step("later", "What if", f"After ten minutes on record{at}: what any number of slots would come to.")
    else:
        yield Step("later", "What if", "With the first forecast: more than ten minutes are on record.")
    if found.recorded_since is None or now - found.recorded_since < LONG_S:
        text = "Forecasts get narrower until a week is on record; from a day on, all methods are compared on it."
        yield Step("later", "As sure as it gets", text)


def _record(found: Beginning, now: float) -> Step:
    title = "On record"
    if found.recorded_since is None:
        if found.gateways:
            return Step("now", title, "A gateway runs: what it is asked goes on record within a minute.")
        text = "Nothing, and no gateway is heard. Start one: manage.py gateway; manage.py up starts it with all else."
        return Step("bad", title, text)
    since = f"Since {_clock(found.recorded_since)}, {lasting(now - found.recorded_since)}"
    silent = "" if found.gateways else " No gateway is heard now: what is asked meanwhile is not recorded."
    if not found.models:
        text = f"{since}, but nothing was asked yet: send a request, as in a deployment's playground.{silent}"
        return Step("now", title, text)
    return Step("done", title, f"{since}: {found.models} model{'s' * (found.models > 1)}.{silent}")


def _first(found: Beginning, now: float) -> Step:
    title = "The first forecast"
    if found.is_worker_silent:
        heard = (
            "was never heard" if found.worker_silent_s is None else f"is silent for {lasting(found.worker_silent_s)}"
        )
        text = f"The control worker makes it, and {heard}. manage.py up starts it; its log tells why it ends."
        return Step("bad", title, text)
    if found.first_at is None:
        text = "Ten minutes after the record begins, at the latest; that of the day ahead within the hour."
        return Step("later", title, text)
    at, day = found.first_at[SOON], found.first_at[DAY_AHEAD]
    ahead = "" if day <= now else f" That of the day ahead comes at {_clock(day)}."
    if at > now:
        return Step("now", title, f"At {_clock(at)}, in {lasting(at - now)}.{ahead}")
    anew = "The keep-alive was changed: the last days are forecast anew." if found.anew else "It is being made."
    return Step("now", title, f"{anew} That takes a minute, with a long record two or three.{ahead}")


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def lasting(seconds: float) -> str:
    for limit, size, unit in ((90.0, 1.0, "s"), (5400.0, 60.0, "min"), (172_800.0, 3600.0, "h")):
        if seconds < limit:
            return f"{max(1.0, seconds / size):.0f} {unit}"
    return f"{seconds / 86_400.0:.0f} days"
