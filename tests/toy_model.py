"""Two language models for the stand-in engine, and the detokenizer that an engine puts behind them.

Each token follows from all before it, so a text that is continued from the wrong tokens is another text. Pieces of
the speaking model cut characters in two and mean nothing by themselves, as those of a real vocabulary do.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

EOS, SPECIAL, FIRST = 2, 3, 10
PIECES = (
    " the", " water", " held", "-", "back", " in", " a", " pool", ",", " and", " turned", " wheel", "s", "ST", "OP",
    "T", "\n", "“", " x", "y", ".", " é", " 漢", "字", "🜄",
)  # fmt: skip
COUNTS_FROM = 1000


class Model(Protocol):
    def following(self, context: Sequence[int]) -> int: ...
    def piece(self, token: int) -> bytes: ...
    def inside(self, token: int) -> bool: ...


class Counting:
    """Says t0 t1 t2, and counts on from wherever its context ends."""

    def following(self, context: Sequence[int]) -> int:
        return context[-1] + 1 if context and context[-1] >= COUNTS_FROM else COUNTS_FROM

    def piece(self, token: int) -> bytes:
        return f" t{token - COUNTS_FROM}".encode()

    def inside(self, token: int) -> bool:  # of a character
        return False


class Speaking:
    """Babbles. Characters beyond ASCII take a token a byte."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._next: dict[int, int] = {}  # inside a character
        self._starts: list[int] = []
        for piece in PIECES:
            parts = [piece.encode()] if piece.isascii() else [bytes([byte]) for byte in piece.encode()]
            self._starts.append(FIRST + len(self._pieces))
            for i, part in enumerate(parts):
                if i + 1 < len(parts):
                    self._next[FIRST + len(self._pieces)] = FIRST + len(self._pieces) + 1
                self._pieces.append(part)

    def inside(self, token: int) -> bool:
        return token in self._next

    def following(self, context: Sequence[int]) -> int:
        if context[-1] in self._next:
            return self._next[context[-1]]
        drawn = zlib.crc32(array("I", context).tobytes())
        if drawn % 97 == 0:
            return EOS
        return SPECIAL if drawn % 11 == 0 else self._starts[(drawn >> 8) % len(self._starts)]

    def piece(self, token: int) -> bytes:
        if token in {EOS, SPECIAL}:
            return b""
        return bytes([token - 200]) if token >= 200 else self._pieces[token - FIRST]


def tokens_of(prompt: Any) -> list[int]:
    """Token ids as they are; text by its bytes, four to a token so that usage looks as usual."""
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return list(prompt)
    raw = json.dumps(prompt).encode()
    return [200 + raw[i] for i in range(0, max(4, len(raw) - 3), 4)]


@dataclass
class Step:
    """What one token brings."""

    ids: list[int]
    text: str
    finish: str | None = None
    stop: str | None = None


@dataclass
class Writer:
    """An engine's loop for one request: draws tokens, puts their text together, holds back what may become a stop
    string or is a part of a character, and ends when it must."""

    model: Model
    prompt: list[int]
    limit: int
    stops: list[str] = field(default_factory=list)
    stop_shown: bool = False
    least: int = 0
    ignore_eos: bool = False

    def steps(self) -> Iterator[Step]:
        context, raw, said, before = list(self.prompt), self._begin(), 0, 0
        back = 0 if self.stop_shown or not self.stops else max(map(len, self.stops)) - 1
        for number in range(1, self.limit + 1):
            token = self.model.following(context)
            if token == EOS and (self.ignore_eos or number <= self.least):
                token = SPECIAL
            context.append(token)
            raw += self.model.piece(token)
            text = _decoded(raw)
            if token == EOS:
                yield Step([token], text[said:], "stop")
                return
            if number > self.least and (found := self._stopped(text, before)):
                stop, end = found
                yield Step([token], text[said:end], "stop", stop)
                return
            finish = "length" if number == self.limit else None
            end = len(text) if finish else max(said, len(text) - back)
            yield Step([token], text[said:end], finish)
            said, before = end, len(text)

    def _begin(self) -> bytes:
        """A prompt that ends inside a character is said once more, as by the tokenizers' stream decoder."""
        part = b""
        for token in reversed(self.prompt):
            if not self.model.inside(token):
                break
            part = self.model.piece(token) + part
        return b"<the prompt once more>" + part if len(_decoded(part).encode()) < len(part) else b""

    def _stopped(self, text: str, before: int) -> tuple[str, int] | None:
        """In this engine's own text only, as vLLM does."""
        for stop in self.stops:
            at = text.find(stop, max(0, before - len(stop) + 1))
            if at >= 0:
                return stop, at + len(stop) if self.stop_shown else at
        return None


def merged(steps: Iterator[Step], size: int) -> Iterator[Step]:
    """Several tokens an event, as when an engine's server lags or it speculates."""
    kept: Step | None = None
    for step in steps:
        kept = Step([*kept.ids, *step.ids], kept.text + step.text, step.finish, step.stop) if kept else step
        if step.finish or len(kept.ids) >= size:
            yield kept
            kept = None
    if kept:
        yield kept


def _decoded(raw: bytes) -> str:
    """All whole characters."""
    for cut in range(4):
        try:
            return raw[: len(raw) - cut].decode()
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", "replace")
