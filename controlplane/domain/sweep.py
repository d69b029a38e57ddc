"""Which loads an engine is measured under, so that laws of prefill and decode come of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SMALLEST, LARGEST = 16, 8192  # tokens of a step
PROMPTS = (128, 512)  # of a batch, tokens each
BATCHES = (2, 4, 8)
CONTEXT, MOST_CONTEXT = 128, 8192
MOST_SEQUENCES = 256
STEPS = 24  # of decode that a time between tokens is taken from
SPARE = 8
SMALL_STEP = 256  # tokens; an engine that takes fewer prompt tokens a step is not reckoned with
MOST_ANSWER = 256


@dataclass(frozen=True, slots=True)
class Room:
    """Of an engine: tokens of one request, of all KV and of one step, and sequences at once. None: not known."""

    context: int
    kv_tokens: int | None = None
    budget: int | None = None
    sequences: int | None = None


@dataclass(frozen=True, slots=True)
class PrefillTry:
    """`batch` prompts of `prompt` tokens each, together."""

    prompt: int
    batch: int = 1

    @property
    def tokens(self) -> int:
        return self.prompt * self.batch


@dataclass(frozen=True, slots=True)
class DecodeTry:
    """`concurrency` prompts of `context` tokens, and long enough answers to see STEPS of all of them together."""

    context: int
    concurrency: int

    @property
    def answer(self) -> int:
        begin = self.context * self.concurrency // SMALL_STEP
        return min(MOST_ANSWER, STEPS + SPARE + begin)

    @property
    def tokens(self) -> int:
        return (self.context + self.answer) * self.concurrency


def prefill_tries(room: Room) -> list[PrefillTry]:
    """Prompts alone in steps of two, then batches of them, within what the engine takes at once."""
    most = min(room.context - 1, LARGEST)
    sizes = list(_doubling(SMALLEST, most))
    if sizes and most > 1.25 * sizes[-1]:
        sizes.append(most)
    step = min(room.budget or LARGEST, room.kv_tokens or LARGEST, LARGEST)
    alone = [PrefillTry(size) for size in sizes if size <= step]
    together = [
        PrefillTry(prompt, batch)
        for prompt in PROMPTS
        for batch in BATCHES
        if prompt < room.context and prompt * batch <= step and batch <= (room.sequences or MOST_SEQUENCES)
    ]
    return alone + together


def decode_tries(room: Room) -> list[DecodeTry]:
    """From one sequence upwards at each of three contexts."""
    most = min(room.context, MOST_CONTEXT)
    contexts = sorted({CONTEXT, most // 4, most * 5 // 8})
    return [
        one
        for context in contexts
        for concurrency in _doubling(1, min(room.sequences or MOST_SEQUENCES, MOST_SEQUENCES))
        if (one := DecodeTry(context, concurrency)).context + one.answer <= room.context
        and one.tokens <= (room.kv_tokens or 1 << 40)
    ]


def _doubling(first: int, most: int) -> Iterator[int]:
    while first <= most:
        yield first
        first *= 2
