"""Measures one engine under the loads of a sweep, in rounds, and makes a profile of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from statistics import median

from controlplane.domain.profiles import DecodePoint, PrefillPoint, Profile, ProfileError, Source
from controlplane.domain.sweep import DecodeTry, PrefillTry, Room, decode_tries, prefill_tries
from controlplane.gateway.table import Engine
from controlplane.planning.meter import IDLE_S, Meter, MeterFailed
from controlplane.planning.profiles import speed_of

ROUNDS = 3  # of prefill, whose steps are short; each size counts by its median
BUDGET_S = 480.0
STEP_S, BEFORE_S = 8.0, 20.0  # that a step of prefill may take, and the prompts before decode can be looked at


class Stopped(Exception):
    """Somebody called it off."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of the engine before it is asked. `room.context` 0: it says so itself."""

    engine: Engine
    served: str  # as clients ask for it
    model: str
    gpu: str
    tp: int
    version: str
    flags: tuple[str, ...]
    room: Room


@dataclass(slots=True)
class Progress:
    """Written on the measuring thread, read on another. `stop`: give it up."""

    done: int = 0
    steps: int = 0
    message: str = "looks at the engine"
    stop: bool = False


@dataclass(slots=True)
class _Found:
    prefill: dict[PrefillTry, list[float]] = field(default_factory=dict)
    decode: list[DecodePoint] = field(default_factory=list)
    sequences: int | None = None
    disturbed: int = 0  # steps with requests of others beside
    untold: int = 0  # sequences that were together too briefly
    mixed: int = 0  # batches that the engine began with other prompts
    late: int = 0  # steps there was no time for
    slow: int = 0  # steps that would take longer than is waited for

    def takes_s(self, tokens: int) -> float:
        """Of prompts, at the best rate that was seen; 0 where none was."""
        best = min((ms / one.tokens for one, took in self.prefill.items() for ms in took), default=0.0)
        return tokens * best / 1e3


async def measure(
    asked: Asked, progress: Progress, *, budget_s: float = BUDGET_S, idle_s: float = IDLE_S
) -> tuple[Profile, list[str]]:
    """The profile, and what is to be known of it. Raises MeterFailed, Stopped."""
    meter = Meter(asked.engine, asked.served, idle_s)
    until = time.monotonic() + budget_s
    try:
        room = replace(asked.room, context=await meter.context(), kv_tokens=await meter.kv_tokens())
        found = _Found(sequences=room.sequences)
        tries = prefill_tries(room) * ROUNDS
        loads = decode_tries(room)
        progress.steps = len(tries) + len(loads)
        await meter.prefill(PrefillTry(64))  # the first request of an engine is slower than any other
        await _each(meter, [*tries, *loads], found, progress, until)
    finally:
        meter.close()
    return _profile(asked, room, found)


async def _each(
    meter: Meter, tries: list[PrefillTry | DecodeTry], found: _Found, progress: Progress, until: float
) -> None:
    for place, one in enumerate(tries):
        if progress.stop:
            raise Stopped
        if time.monotonic() > until:
            found.late = len(tries) - place
            return
        progress.done, progress.message = place, _told(one)
        if _is_too_slow(one, found):
            found.slow += 1
            continue
        found.disturbed += not await meter.is_idle()
        if isinstance(one, PrefillTry):
            await _prefill(meter, one, found)
        elif one.concurrency <= (found.sequences or one.concurrency):
            await _decode(meter, one, found)
    progress.done = len(tries)


def _is_too_slow(one: PrefillTry | DecodeTry, found: _Found) -> bool:
    if isinstance(one, PrefillTry):
        return found.takes_s(one.tokens) > STEP_S
    return found.takes_s(one.context * one.concurrency) > BEFORE_S


async def _prefill(meter: Meter, one: PrefillTry, found: _Found) -> None:
    took = await meter.prefill(one)
    if took is None:
        found.mixed += 1
    else:
        found.prefill.setdefault(one, []).append(took)


async def _decode(meter: Meter, one: DecodeTry, found: _Found) -> None:
    said = await meter.decode(one)
    if said is None:
        found.untold += 1
        return
    found.decode.append(DecodePoint(said.concurrency, said.context, said.itl_ms))
    if said.concurrency < one.concurrency:
        found.sequences = said.concurrency


def _profile(asked: Asked, room: Room, found: _Found) -> tuple[Profile, list[str]]:
    prefill = tuple(
        PrefillPoint(one.tokens, one.batch, one.prompt, median(took)) for one, took in found.prefill.items()
    )
    profile = Profile(
        asked.model, asked.gpu, asked.tp, Source.MEASURED, prefill, tuple(found.decode), asked.version, asked.flags,
        room.kv_tokens, found.sequences,
    )  # fmt: skip
    try:
        speed_of(profile)
    except ProfileError as error:
        raise MeterFailed(f"What was measured makes no law: {error}.") from error
    return profile, _notes(found)


def _notes(found: _Found) -> list[str]:
    notes = []
    if found.disturbed:
        notes.append(f"requests of others ran beside (steps: {found.disturbed})")
    if found.untold:
        notes.append(f"sequences were together too briefly to tell (loads: {found.untold})")
    if found.mixed:
        notes.append(f"batches were begun together with a prompt before them and left out (steps: {found.mixed})")
    if found.slow:
        notes.append(f"some would take longer than {STEP_S:.0f} s a step and were left out (steps: {found.slow})")
    if found.late:
        notes.append(f"there was no time for the last ones (steps: {found.late})")
    return notes


def _told(one: PrefillTry | DecodeTry) -> str:
    if isinstance(one, PrefillTry):
        return f"prefill of {one.batch} x {one.prompt} tokens" if one.batch > 1 else f"prefill of {one.prompt} tokens"
    return f"decode of {one.concurrency} sequences of {one.context} tokens"
