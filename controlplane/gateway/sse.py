"""Reads an engine's event stream as it passes: counts, keeps the usage, drops what the client did not ask for."""

from __future__ import annotations

import msgspec

from controlplane.gateway.frame import Frame
from controlplane.gateway.openai import Usage, error_body
from controlplane.gateway.transcript import Transcript, without_ids

LONGEST_EVENT = 2 << 20  # a first one may hold the tokens of the prompt
DONE = b"data: [DONE]"
ABORTED = error_body("The engine gave the request up.", kind="server_error", code="engine_failed")


class StreamError(Exception):
    """The engine's stream is not one, or holds an error before its first event."""

    def __init__(self, message: str, *, status: int = 502, body: bytes = b"") -> None:
        super().__init__(message)
        self.status, self.body = status, body


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class _ErrorCode(msgspec.Struct):
    code: int | str | None = None


_chunk = msgspec.json.Decoder(_Chunk)


class Events:
    """Feed it pieces as they come; it gives back what to pass on: whole events only. With a `transcript`, what tells
    that the engine failed is not passed on, for the stream may go on elsewhere."""

    __slots__ = ("_strip_usage", "count", "done", "error", "frame", "rest", "shows_ids", "transcript", "usage")

    def __init__(self, *, strip_usage: bool, transcript: Transcript | None = None, show_ids: bool = False) -> None:
        self.count = 0  # events that carry choices
        self.usage: Usage | None = None
        self.done = False
        self.error = b""  # the engine's own error event, as JSON
        self.transcript = transcript
        self._strip_usage, self.shows_ids = strip_usage, show_ids
        self.rest = b""  # of an event that is not whole yet
        self.frame: Frame | None = None  # of the plain events, once there was one

    @property
    def begun(self) -> bool:
        return self.count > 0

    def is_plain(self, piece: bytes) -> bool:
        """Whether `piece` is one whole event of text, with nothing in it to look at. Counts it if so."""
        if (
            not self.rest
            and piece.startswith(b'data: {"id"')  # so it is neither an error nor the end
            and b'"usage"' not in piece
            and b'"finish_reason":null' in piece
            and piece.find(b"\n\n") == len(piece) - 2
        ):
            self.count += 1
            return True
        return False

    def plain(self, piece: bytes) -> bytes | None:
        """What to pass on of a plain piece, which is counted and noted; None for any other. Runs once a token."""
        transcript = self.transcript
        if transcript is None:
            return piece if self.is_plain(piece) else None
        said = None if self.frame is None or self.rest else self.frame.without_ids(piece)
        if said is not None:
            self.count += 1
        elif self.is_plain(piece):
            self.frame = Frame.of(piece)
            said = without_ids(piece)
        else:
            return None
        transcript.keep(piece)
        return piece if self.shows_ids else said

    def feed(self, piece: bytes) -> bytes:
        whole, mark, self.rest = (self.rest + piece).rpartition(b"\n\n")
        if len(self.rest) > LONGEST_EVENT:
            raise StreamError("an event of the engine's stream is too long")
        if not mark:
            return b""
        kept = [passed for event in whole.split(b"\n\n") if (passed := self._pass(event))]
        return b"\n\n".join([*kept, b""]) if kept else b""

    def _pass(self, event: bytes) -> bytes:
        if self.error and self.transcript is not None:
            return b""
        if event == DONE:
            self.done = True
            return event
        if not event.startswith(b"data:"):
            return event.strip() and event
        if b'"usage"' not in event and b'"error"' not in event:
            return self._text(event)
        try:
            chunk = _chunk.decode(event[5:])
        except (msgspec.DecodeError, RecursionError) as error:
            raise StreamError("the engine's stream is not JSON") from error
        if memoryview(chunk.error) != b"null":
            self.error = self.error or event[5:].strip()
            return event if self.transcript is None else b""
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.choices:
            return self._text(event)
        if self._strip_usage and chunk.usage is not None:
            return b""
        if self.transcript is not None and chunk.usage is not None:
            self.transcript.usage_told = True
        return event

    def _text(self, event: bytes) -> bytes:
        if self.transcript is not None:
            if b'"finish_reason":"abort"' in event:
                self.error = ABORTED
                return b""
            self.transcript.keep(event)
            event = event if self.shows_ids else without_ids(event)
        self.count += 1
        return event


def error_status(body: bytes) -> int:
    """The HTTP status that an engine's error object names; 502 when it names none."""
    try:
        code = msgspec.json.decode(body, type=dict[str, _ErrorCode])["error"].code
    except (ValueError, KeyError, RecursionError):
        return 502
    return code if isinstance(code, int) and 400 <= code <= 599 else 502
