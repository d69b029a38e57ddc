"""What a client has got of one stream, kept so that another engine can go on where this one ends.

Events are kept as they came and taken apart only when that is needed: when many have gathered, or when the stream is
to go on. docs/adr/0012 says why tokens are kept and where a text may be cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

KEEP_BYTES = 128 * 1024  # of events not taken apart
KEEP_MARKS = 256  # tokens whose place in the text stays known
MOST_TEXT = 1 << 20  # characters kept when no place to cut is found
MOST_IDS = 4 << 20  # bytes of settled token ids
_IDS = re.compile(rb'"(?:prompt_)?token_ids":\[')
_NULL = b"null"


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: dict[str, Raw] | None = None
    finish_reason: str | None = None
    prompt_token_ids: Raw = Raw(_NULL)
    token_ids: Raw = Raw(_NULL)


class _Event(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    choices: Sequence[_Choice] = ()
    prompt_token_ids: Raw = Raw(_NULL)


_event = msgspec.json.Decoder(_Event)
_string = msgspec.json.Decoder(str | None)


@dataclass(frozen=True, slots=True)
class Head:
    """What all events of one stream have in common."""

    id: str
    created: int
    model: str


@dataclass(slots=True)
class _Mark:
    """The tokens of one event. `end`: where their text ends in what was said, if that is certain."""

    ids: bytes
    count: int
    end: int | None


class Differs(Exception):
    """The engine that goes on says other than what the client has got already."""


class Transcript:
    """`longest_stop`: characters of the longest stop string; the engine holds back one less, unless `stop_shown`."""

    __slots__ = (
        "_at", "_held", "_margin", "_marks", "_prompt", "_raw", "_said", "_settled", "_settled_count", "_size",
        "finished", "head", "lost", "prompt_count", "usage_told",
    )  # fmt: skip

    def __init__(self, *, longest_stop: int = 0, stop_shown: bool = False) -> None:
        self.lost = False  # it cannot be told any more how to go on
        self.finished = False  # the client knows how its answer ended
        self.usage_told = False
        self.head: Head | None = None
        self.prompt_count = 0
        self._held = 0 if stop_shown else max(0, longest_stop - 1)
        self._margin = max(0, longest_stop - 1) if stop_shown else 0
        self._prompt = b""
        self._said = ""  # to the client, since what is settled
        self._at = 0  # how far in that the engine is which says it now
        self._marks: list[_Mark] = []
        self._settled = b""
        self._settled_count = 0
        self._raw: list[bytes] = []
        self._size = 0

    def keep(self, event: bytes) -> None:
        """An event as the engine sent it, or whole chunks that hold some. Runs once a token."""
        self._raw.append(event)
        self._size += len(event)
        if self._size > KEEP_BYTES:
            self.settle()

    def settle(self) -> None:
        """Take the kept events apart, and let go of texts whose tokens are enough."""
        raw, self._raw, self._size = self._raw, [], 0
        for kept in raw:
            for event in kept.split(b"\n\n"):
                if self.lost:
                    return
                self._read_raw(event)
        self._fold()

    def take(self, ids: Raw, text: str, finish: str | None) -> str:
        """What of `text`, the next of an engine that went on, is new to the client. Raises Differs."""
        plain = _plain_ids(ids)
        if plain is None:
            self.lost = True
        new = self._take(plain, text, finish)
        self._fold()
        return new

    @property
    def silent(self) -> bool:
        """Whether the client has got no text yet."""
        return not self._said and not self._settled_count

    @property
    def count(self) -> int:
        """Tokens in all."""
        return self._settled_count + sum(mark.count for mark in self._marks)

    def cut(self, *, repeatable: bool, whole: bool) -> bytes | None:
        """The tokens to go on after, those of the prompt first, as a JSON array. That is the last place where tokens
        and text meet; what lies behind is dropped, and taken from the next engine once more. None when there is no
        such place: a text that is not `repeatable` cannot be taken once more, and with `whole` no token may be."""
        kept = self._last_meeting()
        end = (self._marks[kept - 1].end or 0) if kept else 0
        if (not repeatable and end < len(self._said)) or (whole and (kept < len(self._marks) or end < len(self._said))):
            return None
        del self._marks[kept:]
        self._at = end
        parts = (self._prompt, self._settled, *(mark.ids for mark in self._marks))
        return b"[%b]" % b",".join([part for part in parts if part])

    def forget(self) -> None:
        """Begin anew: the client has got no text, and shall get all of it from another engine."""
        self._marks, self._said, self._at = [], "", 0

    def _last_meeting(self) -> int:
        """How many marks lie before it. The beginning is one, for nothing is settled but up to such a place."""
        last = len(self._said) - self._margin
        for kept in range(len(self._marks), 0, -1):
            end = self._marks[kept - 1].end
            if end is not None and end <= last:
                return kept
        return 0

    def _read_raw(self, event: bytes) -> None:
        """Behind the last one in a chunk comes what ends the chunk."""
        at = event.find(b"data:")
        if at < 0:
            return
        try:
            self._read(_event.decode(event[at + 5 :]))
        except (ValueError, RecursionError, Differs):  # msgspec's are among them
            self.lost = True

    def _read(self, event: _Event) -> None:
        if self.head is None:
            self.head = Head(event.id, event.created, event.model)
        if len(event.choices) != 1:
            self.lost = bool(event.choices)
            return
        (choice,) = event.choices
        prompt = _plain_ids(event.prompt_token_ids) or _plain_ids(choice.prompt_token_ids)
        if prompt and not self._prompt:
            self._prompt, self.prompt_count = prompt, prompt.count(b",") + 1
        plain = _plain_ids(choice.token_ids)
        text = _text(choice, silent=plain is None or choice.finish_reason is not None)
        if text is None or not self._prompt or (plain is None and text):
            self.lost = True
            return
        self._take(plain, text, choice.finish_reason)

    def _take(self, plain: bytes | None, text: str, finish: str | None) -> str:
        known = self._said[self._at : self._at + len(text)]
        self._at += len(text)
        if not text.startswith(known) or (finish and self._at < len(self._said)):
            raise Differs
        new = text[len(known) :]
        self._said += new
        self.finished = self.finished or finish is not None
        if plain:
            count = plain.count(b",") + 1
            # Of one token whose text came, all text came. Of several, the last may be a part of a character.
            self._marks.append(_Mark(plain, count, self._at + self._held if text and count == 1 else None))
        return new

    def _fold(self) -> None:
        if len(self._marks) > 2 * KEEP_MARKS:
            last = len(self._said) - self._margin
            for at in range(len(self._marks) - KEEP_MARKS, 0, -1):
                end = self._marks[at - 1].end
                if end is not None and end <= min(last, self._at):
                    self._settle_to(at, end)
                    break
        if len(self._said) > MOST_TEXT or len(self._settled) > MOST_IDS:
            self.lost = True

    def _settle_to(self, at: int, end: int) -> None:
        gone, self._marks = self._marks[:at], self._marks[at:]
        self._settled = b",".join([*([self._settled] if self._settled else []), *(mark.ids for mark in gone)])
        self._settled_count += sum(mark.count for mark in gone)
        self._said = self._said[end:]
        self._at -= end
        for mark in self._marks:
            if mark.end is not None:
                mark.end -= end


def without_ids(event: bytes) -> bytes:
    """The event as it would be had nobody asked for token ids."""
    while found := _IDS.search(event):
        event = event[: found.end() - 1] + _NULL + event[event.index(b"]", found.end()) + 1 :]
    return event


def _plain_ids(ids: Raw) -> bytes | None:
    """The ids without their brackets; None when there is no list of them."""
    ids = bytes(ids)
    return ids[1:-1].replace(b" ", b"") if ids[:1] == b"[" else None


def _text(choice: _Choice, *, silent: bool) -> str | None:
    """The text of a choice; None when it says anything else, such as a call of a tool. `silent`: it may say nothing.
    An engine that says nothing of a token has put it aside, as the mark of a call or a thought."""
    if choice.delta is None:
        return choice.text
    text = "" if silent else None
    for name, value in choice.delta.items():
        if name == "content":
            text = _string.decode(value) or ""
        elif name != "role" and bytes(value) != _NULL:
            return None
    return text
