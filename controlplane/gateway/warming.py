"""Between the table as it is read and the table that requests are served by: an engine that is new in its role is
tried first, with the engines it will work with, and kept out meanwhile as long as others serve. See docs/adr/0013.

Everything here runs on the event loop, beside the requests; they only see the table that comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice

import structlog

from controlplane.domain.verification import Candidate, Chosen, Standing, choose, judge, until_paired
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.partners import OPPOSITE, can_judge, pairs, partner, plan
from controlplane.gateway.probing import Probing
from controlplane.gateway.table import Engine, Served, Table
from controlplane.gateway.trials import Pace, Seat, Trial, Trials, Way

log = structlog.get_logger(__name__)
ROLES = ("prefill", "decode", "aggregated", "overflow")
SOON_S = 0.005  # results that come together are looked at together
SCAN = 256  # pairs that a tick looks at
Tell = Callable[[int, int, bool, str], None]  # partition, generation, passed, why not
SeatKey = tuple[tuple[int, str, int, float], str, str]


class Warming:
    """`take` each table that is read; `table` is what requests may be served by."""

    def __init__(self, prober: Probing, tell: Tell, metrics: Metrics, pace: Pace) -> None:
        self.table = Table()
        self._prober, self._tell, self._metrics, self._pace = prober, tell, metrics, pace
        self._raw = self.table
        self._seats: dict[SeatKey, Seat] = {}
        self._rosters: dict[str, tuple[tuple[Seat, int], ...]] = {}  # by deployment: seats and their generations
        self._out: dict[str, frozenset[int]] = {}  # by deployment: engines kept out
        self._waiting: dict[str, list[Seat]] = {}  # by deployment: who has something to pass yet
        self._rest: dict[str, Iterator[Way]] = {}  # pairs that nothing waits for
        self._trials = Trials(pace, self._ended)
        self._loop = asyncio.get_running_loop()
        self._soon: set[str] = set()

    def take(self, raw: Table) -> None:
        """Put a table into use. Engines of the first are admitted at once: they served before this process did."""
        is_first, self._raw = not self._raw.read_at, raw
        try:
            self._compare(raw, is_first)
            self._publish()
            self._go_on()
        except Exception:
            log.exception("new engines cannot be tried; all are used")
            self.table = raw

    async def run(self) -> None:
        """Try again what is due, and what nothing waits for, until cancelled."""
        while True:
            await asyncio.sleep(self._pace.tick_s)
            try:
                for name in [name for name, seats in self._waiting.items() if any(map(_is_held, seats))]:
                    self._settle(name)  # a moment has passed: half of the trials may do now
                self._publish()
                self._go_on()
                if not self._trials.running:
                    self._warm_one_more()
            except Exception:
                log.exception("engines cannot be tried again")

    def close(self) -> None:
        self._trials.close()

    # Who is there

    def _compare(self, raw: Table, is_first: bool) -> None:
        names = {served.name: served for served in raw.served.values()}
        for name in [name for name in self._rosters if name not in names]:
            self._enter(name, ())
        for name, served in names.items():
            roster = tuple((seat, seat.engine.generation) for seat in self._seated(served))
            if roster != self._rosters.get(name, ()):
                self._enter(name, roster, admit=is_first)
                self._settle(name)

    def _seated(self, served: Served) -> Iterator[Seat]:
        now = self._loop.time()
        for role in ROLES:
            for id in getattr(served.ready, role):
                engine = self._raw.engines[id]
                yield self._seat(engine, served.name, role, now)
                if served.ready.alike and role in OPPOSITE:
                    self._seat(engine, served.name, OPPOSITE[role], now).rehearses = True

    def _seat(self, engine: Engine, name: str, role: str, now: float) -> Seat:
        key = (engine.process, name, role)
        seat = self._seats.get(key)
        if seat is None:
            seat = self._seats[key] = Seat(engine, name, role)
        seat.engine, seat.seen = engine, now
        return seat

    def _enter(self, name: str, roster: tuple[tuple[Seat, int], ...], *, admit: bool = False) -> None:
        before = dict(self._rosters.pop(name, ()))
        seats = dict(roster)
        for seat in before.keys() - seats.keys():
            seat.admitted, seat.standing = False, Standing.UNKNOWN
        for seat in seats.keys() - before.keys():
            seat.admitted, seat.since = admit, self._loop.time()
        if roster:
            self._rosters[name] = roster
        plan([seat for seat, _ in roster], self._pace.partners)
        for seat, generation in roster:
            if before.get(seat) != generation:
                self._trials.hasten(seat)
        present = [seat for seat, _ in roster]
        self._rest[name] = chain(pairs(present), self._rehearsals(present))
        self._forget()
        if not roster:
            self._out.pop(name, None)
            self._rest.pop(name, None)
            self._waiting.pop(name, None)

    def _rehearsals(self, present: list[Seat]) -> Iterator[Way]:
        """Pairs as they would be after a flip, of engines that are started alike: their handshake is then over when it
        comes to that. Each with a bounded number of others."""
        now = self._loop.time()
        able = [seat for seat in present if seat.role in OPPOSITE and self._has_other_seat(seat)]
        for place, one in enumerate(able):
            for other in islice(chain(able[place + 1 :], able[:place]), self._pace.partners):
                prefill = self._seat(one.engine, one.deployment, "prefill", now)
                yield prefill, self._seat(other.engine, other.deployment, "decode", now)

    def _has_other_seat(self, seat: Seat) -> bool:
        other = self._seats.get((seat.engine.process, seat.deployment, OPPOSITE[seat.role]))
        return other is not None and other.rehearses

    def _forget(self) -> None:
        """Engines that left long ago."""
        until = self._loop.time() - self._pace.forget_s
        gone = {key: seat for key, seat in self._seats.items() if seat.seen < until}
        for key in gone:
            del self._seats[key]
        if gone:
            self._trials.forget(set(gone.values()))

    # What is known of them

    def _settle(self, name: str) -> None:
        """Look at all trials of a deployment's engines: who may be used, what is to be told, who waits for more."""
        seats = [seat for seat, _ in self._rosters.get(name, ())]
        for seat in seats:
            seat.standing = self._standing(seat)
        rows = [Candidate(i, s.role != "prefill", s.admitted, s.standing) for i, s in enumerate(seats)]
        chosen = self._whole(name, seats, rows, choose(rows))
        for index in chosen.admit:
            self._admit(seats[index])
        self._out.pop(name, None)
        if out := frozenset(seat.engine.id for index, seat in enumerate(seats) if index not in chosen.use):
            self._out[name] = out
        for seat in seats:
            self._report(seat)
        # Those that clients are kept from come first.
        self._waiting[name] = sorted((seat for seat in seats if self._is_open(seat)), key=lambda seat: seat.admitted)

    def _whole(self, name: str, seats: list[Seat], rows: list[Candidate], chosen: Chosen) -> Chosen:
        """Of one that the pool wakes as a pair, both halves or neither."""
        served = self._raw.served.get(name)
        if served is None or not served.pair:
            return chosen
        prefill, decode = ([row for row in rows if seats[row.id].role == role] for role in OPPOSITE)
        found = until_paired(chosen, prefill, decode, [row.id for row in decode if seats[row.id].paired])
        if any(row.id in found.use for row in prefill):
            for row in decode:
                seats[row.id].paired |= row.id in found.use
        return found

    def _admit(self, seat: Seat) -> None:
        if not seat.admitted and seat.standing is Standing.GOOD:
            after_ms = round((self._loop.time() - seat.since) * 1e3)
            log.info("an engine is verified", engine=seat.engine.name, role=seat.role, after_ms=after_ms)
        seat.admitted = True

    def _standing(self, seat: Seat) -> Standing:
        if seat.admitted and seat.passed:
            return Standing.GOOD
        # One that is itself on trial is no judge, where there is another.
        judges = [way for way in seat.ways if can_judge(partner(seat, way))] or seat.ways
        hurry = self._loop.time() - seat.since >= self._pace.hurry_s
        return judge((self._trials.of(way).passed for way in judges), admitted=seat.admitted, hurry=hurry)

    def _is_open(self, seat: Seat) -> bool:
        if seat.admitted and seat.standing is Standing.GOOD:
            return False  # the rest of its pairs follows when nothing presses
        return any(self._trials.of(way).passed is not True for way in seat.ways)

    def _report(self, seat: Seat) -> None:
        """Tell the control plane, once for each generation and each round of failures."""
        engine = seat.engine
        if seat.standing is Standing.GOOD and seat.told != (engine.generation, 0):
            seat.told = (engine.generation, 0)
            self._tell(engine.id, engine.generation, True, "")
        if seat.standing is Standing.BAD:
            failed = [trial for trial in map(self._trials.of, seat.ways) if trial.passed is False]
            told = (engine.generation, min(trial.failures for trial in failed))
            if told[0] != seat.told[0] or told[1] > seat.told[1]:
                seat.told = told
                self._tell(engine.id, engine.generation, False, failed[0].why)

    # Trying them

    def _go_on(self) -> None:
        for seats in self._waiting.values():
            for way in chain.from_iterable(seat.ways for seat in seats):
                if self._trials.is_full:
                    return
                if self._trials.may_start(way):
                    self._try(way)

    def _try(self, way: Way) -> None:
        served = self._raw.served[way[0].deployment]
        if len(way) == 1:
            self._trials.start(way, partial(self._prober.alone, way[0].engine, served.name))
            return
        prefill, decode = way
        work = partial(self._prober.pair, prefill.engine, decode.engine, served.name, served.block_tokens)
        self._trials.start(way, work)

    def _ended(self, way: Way, trial: Trial) -> None:
        name = way[0].deployment
        there = dict(self._rosters.get(name, ()))
        if not all(seat in there for seat in way) and not trial.passed:
            self._trials.drop(way)  # it was leaving, or only rehearsed: that says nothing of it
            return
        outcome = "passed" if trial.passed else "failed"
        self._metrics.verifications.labels(name, outcome).inc()
        if trial.passed:
            for seat in way:
                seat.passed = True
        else:
            engines = [seat.engine.name for seat in way]
            log.warning("an engine failed its trial", engines=engines, why=trial.why, failures=trial.failures)
        if not self._soon:
            self._loop.call_later(SOON_S, self._look)
        self._soon.add(name)

    def _look(self) -> None:
        names, self._soon = self._soon, set()
        for name in names:
            self._settle(name)
        self._publish()
        self._go_on()

    def _warm_one_more(self) -> None:
        for rest in self._rest.values():
            way = next((way for way in islice(rest, SCAN) if self._trials.may_start(way)), None)
            if way is not None:
                self._try(way)
                return

    def _publish(self) -> None:
        raw = self._raw
        self._metrics.held.set(sum(map(len, self._out.values())))
        if not self._out:
            self.table = raw
            return
        changed = {name: _without(raw.served[name], out) for name, out in self._out.items()}
        self.table = replace(raw, served={alias: changed.get(one.name, one) for alias, one in raw.served.items()})


def _without(served: Served, out: frozenset[int]) -> Served:
    ready = served.ready
    kept = {role: tuple(id for id in getattr(ready, role) if id not in out) for role in ROLES}
    return replace(served, ready=replace(ready, **kept))


def _is_held(seat: Seat) -> bool:
    return not seat.admitted and seat.standing is Standing.UNKNOWN
