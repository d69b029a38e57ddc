"""Reads an engine's event stream as it passes: counts, keeps the usage, drops what the client did not ask for."""

from __future__ import annotations

import msgspec

from controlplane.gateway.openai import Usage

LONGEST_EVENT = 1 << 20
DONE = b"data: [DONE]"


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
    """Feed it pieces as they come; it gives back what to pass on: whole events only."""

    __slots__ = ("_rest", "_strip_usage", "count", "done", "error", "usage")

    def __init__(self, *, strip_usage: bool) -> None:
        self.count = 0  # events that carry choices
        self.usage: Usage | None = None
        self.done = False
        self.error = b""  # the engine's own error event, as JSON
        self._strip_usage = strip_usage
        self._rest = b""

    def is_plain(self, piece: bytes) -> bool:
        """Whether `piece` is one whole event of text, with nothing in it to look at. Counts it if so."""
        if (
            not self._rest
            and piece.startswith(b'data: {"id"')  # so it is neither an error nor the end
            and b'"usage"' not in piece
            and piece.find(b"\n\n") == len(piece) - 2
        ):
            self.count += 1
            return True
        return False

    def feed(self, piece: bytes) -> bytes:
        whole, mark, self._rest = (self._rest + piece).rpartition(b"\n\n")
        if len(self._rest) > LONGEST_EVENT:
            raise StreamError("an event of the engine's stream is too long")
        if not mark:
            return b""
        kept = [event for event in whole.split(b"\n\n") if self._keeps(event)]
        return b"\n\n".join([*kept, b""]) if kept else b""

    def _keeps(self, event: bytes) -> bool:
        if event == DONE:
            self.done = True
            return True
        if not event.startswith(b"data:"):
            return bool(event.strip())
        if b'"usage"' not in event and b'"error"' not in event:
            self.count += 1
            return True
        try:
            chunk = _chunk.decode(event[5:])
        except (msgspec.DecodeError, RecursionError) as error:
            raise StreamError("the engine's stream is not JSON") from error
        if memoryview(chunk.error) != b"null":
            self.error = self.error or event[5:].strip()
            return True
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.choices:
            self.count += 1
            return True
        return not (self._strip_usage and chunk.usage is not None)


def error_status(body: bytes) -> int:
    """The HTTP status that an engine's error object names; 502 when it names none."""
    try:
        code = msgspec.json.decode(body, type=dict[str, _ErrorCode])["error"].code
    except (msgspec.DecodeError, KeyError):
        return 502
    return code if isinstance(code, int) and 400 <= code <= 599 else 502
