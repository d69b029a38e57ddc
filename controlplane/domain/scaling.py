"""How many engines a role of a deployment shall have: a floor by the forecast, more while something presses, fewer
after a quiet time. Pure.

Forecasts set a floor that is never gone below. What is measured may go above it at once, and comes back down once fewer
would have done for long: of k too many by the floor's replay one goes after a k-th of that time, so that what a burst
left behind is not held as long as what is nearly needed. What is not known changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from workers.contract import Role

PRESSING = 1.1  # times its bound: a figure that is over by less is noise
MOST_AT_ONCE = 2.0  # times the engines that there are
KV_FULL = 0.9  # of its blocks; beyond, an engine preempts
QUIET_SHARE, KV_QUIET = 0.8, 0.7  # of the bounds, that fewer engines would still keep to


class Kind(StrEnum):
    """Why a lane shall have as many engines as it shall."""

    KEEP = "keep"  # it is as it should be
    HOLD = "hold"  # something is not known, or it is too soon
    BOUND = "bound"  # its least or most
    FORECAST = "forecast"
    PRESSURE = "pressure"
    LOST = "lost"  # others take the place of engines that will not come back by themselves
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Load:
    """What its engines say together. None: at least one of them tells nothing. `kv_usage`: the fullest, 0..1."""

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """p95 of the requests that ended in the last minute, and what is aimed at, ms. None: no request, no aim. Only those
    count that came after the last engine: what was late before it is no reason for another."""

    ttft_ms: float | None = None
    itl_ms: float | None = None
    slo_ttft_ms: float | None = None
    slo_itl_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """One role of one deployment. `count` engines are assigned, of which `ready` serve; `lost` ones, on a node or GPU
    that is gone or ending again and again, are not among them. `floor`: by the forecast, None
    where it is not known. `quiet_s`: for so long one engine fewer would have done."""

    role: Role
    count: int
    ready: int
    least: int = 0
    most: int | None = None
    load: Load = Load()
    floor: int | None = None
    floor_why: str = ""
    quiet_s: float = 0.0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """`fewer_would_do`: one engine less now; whoever asks remembers since when."""

    count: int
    kind: Kind
    why: str
    fewer_would_do: bool = False


def wanted(lane: Lane, served: Served, *, quiet_s: float, decode_full: bool = False) -> Wanted:
    """`quiet_s`: for so long fewer must do before one goes. `decode_full`: the deployment's decode engines cannot take
    what prefill gives them, so that a late first token is not prefill's fault."""
    found = _before_bounds(lane, served, quiet_s, decode_full)
    bound = max(found.count, lane.least)
    if lane.most is not None:
        bound = min(bound, max(lane.most, lane.least))
    if bound == found.count:
        return found
    name, limit = ("minimum", lane.least) if bound > found.count else ("maximum", lane.most)
    asked = "" if found.kind in (Kind.KEEP, Kind.HOLD) else f"; without it {found.count}: {found.why}"
    return Wanted(bound, Kind.BOUND, f"its {name} is {limit}{asked}", found.fewer_would_do)


def is_full(load: Load) -> bool:
    """Requests wait, or the KV cache has no room for more."""
    return (load.waiting or 0.0) >= 1.0 or (load.kv_usage or 0.0) > KV_FULL


def _before_bounds(lane: Lane, served: Served, quiet_s: float, decode_full: bool) -> Wanted:
    if lane.floor is not None and lane.floor > lane.count:
        return Wanted(lane.floor, Kind.FORECAST, lane.floor_why)
    if lane.floor is None and lane.lost:
        return Wanted(lane.count + lane.lost, Kind.LOST, f"{lane.lost} of its engines will not come back by themselves")
    if not lane.count:
        return Wanted(0, Kind.KEEP, "nothing asks for one")
    if lane.ready < lane.count:
        return Wanted(lane.count, Kind.HOLD, f"{lane.ready} of {lane.count} engines ready: the rest is waited for")
    if lane.load.running is None or lane.load.waiting is None:
        return Wanted(lane.count, Kind.HOLD, "not all of its engines tell how busy they are")
    ratio, why = _pressure(lane, served, decode_full)
    if ratio > PRESSING:
        return Wanted(math.ceil(lane.count * min(ratio, MOST_AT_ONCE)), Kind.PRESSURE, why)
    enough = _enough(lane, served)
    if enough == lane.count:
        return Wanted(lane.count, Kind.KEEP, why or "nothing presses, and none is to spare")
    count = _let_go(lane, enough, quiet_s)
    if count == lane.count:
        needs_s = quiet_s / (lane.count - enough)
        why = f"{enough} would do, but only for {lane.quiet_s:.0f} s of {needs_s:.0f}"
        return Wanted(count, Kind.KEEP, why, fewer_would_do=True)
    fewer = "one fewer has" if enough == lane.count - 1 else f"{enough} would do, and fewer have"
    return Wanted(count, Kind.QUIET, f"{fewer} been enough for {lane.quiet_s:.0f} s", True)


def _let_go(lane: Lane, enough: int, quiet_s: float) -> int:
    """What is left of them: of k too many one goes after a k-th of the quiet time."""
    count = lane.count
    while count > enough and lane.quiet_s * (count - enough) >= quiet_s:
        count -= 1
    return count


def _pressure(lane: Lane, served: Served, decode_full: bool) -> tuple[float, str]:
    """How far the worst figure is over its bound, and that figure in words; 0 where none is known."""
    found = [(0.0, "")]
    if lane.role is not Role.DECODE and not decode_full and served.ttft_ms is not None and served.slo_ttft_ms:
        text = f"TTFT p95 {served.ttft_ms:.0f} ms of {served.slo_ttft_ms:.0f} ms"
        found.append((served.ttft_ms / served.slo_ttft_ms, text))
    if lane.role is not Role.PREFILL:
        if served.itl_ms is not None and served.slo_itl_ms:
            text = f"ITL p95 {served.itl_ms:.0f} ms of {served.slo_itl_ms:.0f} ms"
            found.append((served.itl_ms / served.slo_itl_ms, text))
        if lane.load.kv_usage is not None:
            found.append((lane.load.kv_usage / KV_FULL, f"KV {lane.load.kv_usage:.0%} full"))
    waiting, running = lane.load.waiting or 0.0, lane.load.running or 0.0
    if waiting >= lane.count and (lane.role is Role.DECODE or not served.slo_ttft_ms):
        engines = "1 engine" if lane.count == 1 else f"{lane.count} engines"
        found.append((1.0 + waiting / max(running, 1.0), f"{waiting:.0f} waiting at {engines}"))
    return max(found)


def _enough(lane: Lane, served: Served) -> int:
    """The fewest that would do by all that is known: one less at most where no replay vouches for fewer; never none,
    for that is what the pool is there for."""
    if _queues(lane, served):
        return lane.count
    lowest = max(1, lane.least, lane.count - 1 if lane.floor is None else lane.floor)
    count = lane.count
    while count > lowest and _would_do(lane, served, count - 1):
        count -= 1
    return count


def _would_do(lane: Lane, served: Served, fewer: int) -> bool:
    grows = lane.count / fewer
    busy = (lane.load.running or 0.0) > 0
    bounds = [(lane.load.kv_usage, KV_QUIET)] if lane.role is not Role.PREFILL else []
    if lane.role is not Role.DECODE:
        bounds.append((_share(served.ttft_ms, served.slo_ttft_ms), QUIET_SHARE))
    if lane.role is not Role.PREFILL:
        bounds.append((_share(served.itl_ms, served.slo_itl_ms), QUIET_SHARE))
    if all(share is None for share, _ in bounds):
        return not busy and lane.floor is not None  # nobody is served: then the forecast alone decides
    return all(share is None or share * grows <= bound for share, bound in bounds)


def _queues(lane: Lane, served: Served) -> bool:
    """Where prefill's objective is known, it says more than who waits in the very moment of a look."""
    told = lane.role is not Role.DECODE and _share(served.ttft_ms, served.slo_ttft_ms) is not None
    return (lane.load.waiting or 0.0) >= (lane.count if told else 1.0)


def _share(figure: float | None, bound: float | None) -> float | None:
    return figure / bound if figure is not None and bound else None
