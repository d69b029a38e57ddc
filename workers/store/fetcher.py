"""Fetches the weights that the spec wants on this node, one model after another, in a thread of its own.

What lies there is not fetched again. Room is made by removing what was fetched earlier and is neither wanted, nor in
the spec, nor used by an engine that runs. Engines that start meanwhile share the files that are there already.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from workers.contract import NodeSpec
from workers.store.downloading import CannotFetch, Download, Hub
from workers.store.keeper import Keeper
from workers.store.ledger import Entry, Ledger
from workers.store.room import GIB, Disk, Limits, NoRoom, make_room, room_bytes
from workers.view import View
from workers.weights import MOST_FETCHES, Fetching, FetchReport, FetchState, FetchWanted, WeightsReport, WeightsState

log = logging.getLogger(__name__)
EVERY_S, BUSY_S = 5.0, 0.5
TELL_EVERY_S = 5.0  # how often it is told that more bytes came
TELL_SHARE = 0.01  # of all, before it is worth telling
SEEN_S = 90.0  # within which what was fetched is found on the disk
AGAIN_S, AGAIN_CAP_S = 60.0, 3600.0  # after a failure
ROOM_EVERY_S = 60.0


@dataclass(slots=True)
class Try:
    """What became of one that is wanted."""

    failures: int = 0
    why: str = ""
    again_at: float = 0.0
    ended_at: float = 0.0  # when all had come
    total_bytes: int | None = None
    told_bytes: int = 0
    told_at: float = 0.0


class Fetcher:
    """`spec` and `view`: what is to run here, and what runs. `cache`: where files are put."""

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        *,
        cache: Path,
        limits: Limits,
        keeper: Keeper,
        spec: Callable[[], NodeSpec | None],
        view: Callable[[], View],
    ) -> None:
        self._hub, self._ledger, self._cache, self._limits = hub, ledger, cache, limits
        self._keeper, self._spec, self._view = keeper, spec, view
        self._tries: dict[FetchWanted, Try] = {}
        self._run: tuple[FetchWanted, Download] | None = None
        self._room: tuple[float, int | None] = (float("-inf"), None)
        self._wake, self._done = threading.Event(), threading.Event()
        self.latest: FetchReport | None = None
        self.on_change: Callable[[], None] = lambda: None

    # --- from other threads ------------------------------------------------------------------------------

    def soon(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._done.set()
        self._wake.set()

    def run(self) -> None:
        while not self._done.is_set():
            try:
                self.tick(time.time())
            except Exception:
                log.exception("fetching failed; the next look starts afresh")
            self._wake.wait(BUSY_S if self._run else EVERY_S)
            self._wake.clear()
        if self._run:
            self._run[1].kill()

    # --- one look ----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        spec, held = self._spec(), self._keeper.latest[1]
        wanted = spec.fetch[:MOST_FETCHES] if spec else ()
        missing = [one for one in wanted if held is None or not lies_there(one, held)]
        kept = {one: state for one, state in self._tries.items() if one in missing}  # what lies there starts afresh
        self._tries = {one: kept.get(one) or Try() for one in wanted}
        if held is not None:
            self._ledger.forget_gone(held, {one.source for one in missing})
            self._watch(missing, now)
            self._start_next(missing, now)
        self._tell(missing, now)

    def _watch(self, missing: list[FetchWanted], now: float) -> None:
        if self._run is None:
            return
        one, download = self._run
        if one not in self._tries:
            log.info("fetching %s is given up: it is no longer wanted", one.source)
            self._end()
        elif (why := download.outcome()) is not None:
            self._finish(one, download, why, now)
        elif download.plan and not download.went:
            self._tries[one].total_bytes = download.plan.total_bytes
            self._let_go(one, download, now)

    def _let_go(self, one: FetchWanted, download: Download, now: float) -> None:
        """It knows what there is to do: make room for it."""
        plan = download.plan
        assert plan is not None
        entry = Entry(
            source=one.source, revision=one.revision, commit=plan.commit, bytes=plan.total_bytes, began_at=now
        )
        try:
            self._clear(entry, plan.left_bytes)
        except (CannotFetch, OSError) as error:
            self._fail(one, str(error), now)
            return
        self._ledger.put(entry)
        download.go()

    def _clear(self, entry: Entry, left: int) -> None:
        """One after another, for what goes may free less than it came to. Raises CannotFetch, OSError."""
        while True:
            kept = self._ledger.kept(self._keeper.used, apart=(entry.source, entry.commit))
            found = make_room(
                kept, total=entry.bytes, left=left, limits=self._limits, disk=self._disk(), protected=self._protected()
            )
            if isinstance(found, NoRoom):
                raise CannotFetch(f"no room: {found.why}")
            if not found:
                return
            self._hub.remove(found[0].source, found[0].commit)
            self._ledger.drop(found[0].source, found[0].commit)
            self._keeper.soon()

    def _protected(self) -> set[str]:
        """Looked up when something is to go: the spec may be a new one."""
        spec, records = self._spec(), self._view().records
        # Who sleeps may have to read its weights again.
        engines = (*spec.replicas, *spec.sleepers) if spec else ()
        told = {one.model for one in engines} | {one.source for one in (spec.fetch if spec else ())}
        return told | {record.replica.spec.model for record in records if record.is_live}

    def _finish(self, one: FetchWanted, download: Download, why: str, now: float) -> None:
        if why:
            self._fail(one, why, now)
            return
        assert download.plan is not None
        entry = self._ledger.get(one.source, download.plan.commit)
        if entry:
            self._ledger.put(structs.replace(entry, checked_at=float(round(now))))
        log.info("fetched %s: %d bytes", one.source, download.plan.total_bytes)
        self._tries[one] = Try(ended_at=now, total_bytes=download.plan.total_bytes)
        self._end()
        self._keeper.soon()

    def _fail(self, one: FetchWanted, why: str, now: float) -> None:
        failed = self._tries.setdefault(one, Try())
        failed.failures += 1
        failed.why, failed.ended_at = why[:256], 0.0
        failed.again_at = now + min(AGAIN_CAP_S, AGAIN_S * 2 ** min(failed.failures - 1, 8))
        log.warning("%s could not be fetched: %s", one.source, why)
        self._end()

    def _end(self) -> None:
        if self._run:
            self._run[1].kill()
            self._run = None

    def _start_next(self, missing: list[FetchWanted], now: float) -> None:
        for one in missing:
            state = self._tries[one]
            if state.ended_at and now - state.ended_at > SEEN_S:
                self._fail(one, "it was downloaded, but no whole weights are found in it", now)
            if self._run or state.ended_at or now < state.again_at:
                continue
            try:
                if one.source.startswith("/"):
                    raise CannotFetch("it is a folder: there is nothing to fetch")
                self._run = one, self._hub.fetch(one.source, one.revision)
            except (CannotFetch, OSError) as error:
                self._fail(one, str(error), now)

    # --- what is told ------------------------------------------------------------------------------------

    def _tell(self, missing: list[FetchWanted], now: float) -> None:
        report = FetchReport(
            fetches=tuple(self._standing(one, now) for one in missing),
            room_bytes=self._room_bytes(now),
            why_not=self._hub.why_not()[:256],
        )
        if report == self.latest:
            return
        before, self.latest = self.latest, report
        if _states(before) != _states(report):
            self.on_change()

    def _standing(self, one: FetchWanted, now: float) -> Fetching:
        state, run = self._tries[one], self._run
        is_run = run is not None and run[0] == one
        if run and is_run:
            self._note_bytes(state, run[1].bytes, now)
        return Fetching(
            source=one.source,
            revision=one.revision,
            state=FetchState.FETCHING if is_run or state.ended_at else
            FetchState.FAILED if state.why else FetchState.WAITING,
            bytes=(state.total_bytes or 0) if state.ended_at else state.told_bytes,
            total_bytes=state.total_bytes,
            message="" if is_run or state.ended_at else state.why,
        )  # fmt: skip

    def _note_bytes(self, state: Try, bytes: int, now: float) -> None:
        worth = (state.total_bytes or 0) * TELL_SHARE
        is_first = not state.told_bytes
        if bytes != state.told_bytes and (
            is_first or (now - state.told_at >= TELL_EVERY_S and abs(bytes - state.told_bytes) >= worth)
        ):
            state.told_bytes, state.told_at = bytes, now

    def _room_bytes(self, now: float) -> int | None:
        if now - self._room[0] >= ROOM_EVERY_S:
            try:
                room = room_bytes(self._ledger.kept({}), self._limits, self._disk())
            except OSError:
                room = None
            if self._room[1] is None or room is None or abs(room - self._room[1]) != GIB:  # not to and fro at a border
                self._room = now, room
        return self._room[1]

    def _disk(self) -> Disk:
        """The one that the cache is on, or will be."""
        place = self._cache
        while not place.exists() and place != place.parent:
            place = place.parent
        usage = shutil.disk_usage(place)
        return Disk(usage.total, usage.free)


def lies_there(wanted: FetchWanted, held: WeightsReport) -> bool:
    return any(
        one.source == wanted.source
        and one.state == WeightsState.COMPLETE
        and (wanted.revision or "main") in one.revisions
        for one in held.models
    )


def _states(report: FetchReport | None) -> list[tuple[str, str, FetchState]] | None:
    return [(one.source, one.revision, one.state) for one in report.fetches] if report else None
