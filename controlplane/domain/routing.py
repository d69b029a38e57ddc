"""Which engines serve a request: a pair, a decode engine alone, or an aggregated one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_MASK = (1 << 64) - 1


class Path(StrEnum):
    """How a request is served."""

    TWO_STEP = "two_step"  # prefill, KV transfer, decode
    DIRECT = "direct"  # a decode engine does both phases, or at need a prefill engine
    AGGREGATED = "aggregated"
    OVERFLOW = "overflow"  # an aggregated engine in a slot of the pool, beyond the deployment's own


@dataclass(frozen=True, slots=True)
class Ready:
    """The ready engines of one deployment, by role, as ids that mean something to the caller. `alike`: prefill and
    decode engines are started alike, so that each can do the other's work. `overflow`: aggregated ones that the pool
    lends it."""

    prefill: tuple[int, ...] = ()
    decode: tuple[int, ...] = ()
    aggregated: tuple[int, ...] = ()
    overflow: tuple[int, ...] = ()
    alike: bool = False


@dataclass(frozen=True, slots=True)
class Most:
    """How many requests in flight one engine of a role is given at most; None: any number."""

    prefill: int | None = None
    decode: int | None = None
    aggregated: int | None = None  # overflow too


ANY_NUMBER = Most()


@dataclass(frozen=True, slots=True)
class Route:
    path: Path
    engine: int  # answers the client
    prefill: int | None = None


def pick(
    ready: Ready,
    load: Mapping[int, int],
    *,
    most: Most | None = None,
    prefix: int = 0,
    transfer: bool = True,
    failed: Collection[int] = (),
    suspect: Collection[int] = (),
) -> Route | None:
    """The route with the least requests in flight; among equals the one that `prefix` belongs to.

    `failed` engines are not used, `suspect` ones only when there is no other. Without `transfer` no KV is
    moved. A decode engine serves alone rather than nobody when no prefill engine is there, and so does a prefill
    engine that is like it when nobody else can answer. Overflow serves what the others have no room for by `most`, or
    when there are no others.
    """
    own = _own(ready, load, most, prefix=prefix, transfer=transfer, failed=failed, suspect=suspect)
    if not ready.overflow or (own is not None and own.engine not in suspect and has_room(own, ready, load, most)):
        return own
    engine = _least(ready.overflow, load, prefix, failed, suspect)
    if engine is None:
        return own
    beyond = Route(Path.OVERFLOW, engine)
    if own is None or (engine not in suspect and has_room(beyond, ready, load, most)):
        return beyond
    return own


def pick_decode(
    ready: Ready,
    load: Mapping[int, int],
    *,
    prefix: int = 0,
    failed: Collection[int] = (),
    suspect: Collection[int] = (),
) -> int | None:
    """The decode engine for blocks that a prefill has made: any of the deployment's can pull them."""
    return _least(ready.decode, load, prefix, failed, suspect)


def has_room(route: Route, ready: Ready, load: Mapping[int, int], most: Most | None) -> bool:
    """Whether the route's engines take one request more. A route that `pick` chose is the least loaded, so that when it
    has no room, no other has."""
    if most is None:
        return True
    if route.path in (Path.AGGREGATED, Path.OVERFLOW):
        return not _is_full(route.engine, load, most.aggregated)
    if _is_full(route.engine, load, most.decode if route.engine in ready.decode else most.prefill):
        return False
    return route.prefill is None or not _is_full(route.prefill, load, most.prefill)


def affinity(prefix: int, engine: int) -> int:
    """Rendezvous hashing: each prefix ranks the engines in an order of its own, which an engine that comes or
    goes changes for its own share of the prefixes only."""
    mixed = (prefix * 0x9E3779B97F4A7C15 + engine * 0xC2B2AE3D27D4EB4F) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def _own(
    ready: Ready,
    load: Mapping[int, int],
    most: Most | None,
    *,
    prefix: int,
    transfer: bool,
    failed: Collection[int],
    suspect: Collection[int],
) -> Route | None:
    """The route through the deployment's own partitions."""
    answering = _least(ready.decode, load, prefix, failed, suspect)
    aggregated = _least(ready.aggregated, load, prefix, failed, suspect)
    most = most or ANY_NUMBER
    if aggregated is not None and (
        answering is None
        or _rank(aggregated, load, most.aggregated, suspect) < _rank(answering, load, most.decode, suspect)
    ):
        return Route(Path.AGGREGATED, aggregated)
    if answering is None:
        return _last_resort(ready, load, prefix, failed, suspect)
    prefill = _least(ready.prefill, load, prefix, failed, suspect) if transfer else None
    if prefill is None:
        return Route(Path.DIRECT, answering)
    return Route(Path.TWO_STEP, answering, prefill)


def _last_resort(
    ready: Ready, load: Mapping[int, int], prefix: int, failed: Collection[int], suspect: Collection[int]
) -> Route | None:
    engine = _least(ready.prefill, load, prefix, failed, suspect) if ready.alike else None
    return None if engine is None else Route(Path.DIRECT, engine)


def _least(
    engines: Iterable[int],
    load: Mapping[int, int],
    prefix: int,
    failed: Collection[int],
    suspect: Collection[int],
) -> int | None:
    best, best_rank = None, (True, 0, 0)
    for engine in engines:
        if engine in failed:
            continue
        rank = (engine in suspect, load.get(engine, 0), -affinity(prefix, engine))
        if best is None or rank < best_rank:
            best, best_rank = engine, rank
    return best


def _rank(engine: int, load: Mapping[int, int], most: int | None, suspect: Collection[int]) -> tuple[bool, bool, int]:
    """Less is better."""
    return engine in suspect, _is_full(engine, load, most), load.get(engine, 0)


def _is_full(engine: int, load: Mapping[int, int], most: int | None) -> bool:
    return most is not None and load.get(engine, 0) >= most
