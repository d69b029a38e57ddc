"""Reads the stream of an engine that goes on where another ended, and gives it back in the form of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from controlplane.gateway.openai import Ask, Kind, Usage, error_body
from controlplane.gateway.sse import ABORTED, DONE, LONGEST_EVENT, StreamError
from controlplane.gateway.transcript import Differs, Head, Transcript

OBJECTS = {Kind.CHAT: "chat.completion.chunk", Kind.COMPLETION: "text_completion"}
_NULL = Raw(b"null")
_encode = msgspec.json.Encoder().encode


class _Choice(msgspec.Struct):
    text: str = ""
    delta: dict[str, Raw] | None = None
    finish_reason: str | None = None
    stop_reason: Raw = _NULL
    token_ids: Raw = _NULL


class _Chunk(msgspec.Struct):
    choices: Sequence[_Choice] = ()
    usage: Usage | None = None
    error: Raw = _NULL


_chunk = msgspec.json.Decoder(_Chunk)


class Splice:
    """Takes the place of `Events` for the parts of a stream behind the first. `ask` is the client's own. With `anew`
    the engine was asked just that, for the client had got no text."""

    def __init__(self, ask: Ask, transcript: Transcript, *, show_ids: bool, anew: bool) -> None:
        self.count = 0  # events given to the client
        self.usage: Usage | None = None
        self.done = False
        self.error = b""
        self.begun = False
        self.frame, self.shows_ids = None, show_ids
        self._ask, self.transcript, self._anew = ask, transcript, anew
        self._before = 0 if anew else transcript.count
        self._rest = b""

    def plain(self, piece: bytes) -> bytes | None:
        return None

    def feed(self, piece: bytes) -> bytes:
        whole, mark, self._rest = (self._rest + piece).rpartition(b"\n\n")
        if len(self._rest) > LONGEST_EVENT:
            raise StreamError("an event of the engine's stream is too long")
        if not mark:
            return b""
        out = []
        for event in whole.split(b"\n\n"):
            if self.error or self.done:
                break
            out.append(self._event(event))
        return b"".join(out)

    def _event(self, event: bytes) -> bytes:
        if event == DONE:
            self.done = True
            return closing(self._ask, self.transcript, self.usage)
        if not event.startswith(b"data:"):
            return b""
        try:
            chunk = _chunk.decode(event[5:])
        except (msgspec.DecodeError, RecursionError) as error:
            raise StreamError("the engine's stream is not JSON") from error
        if memoryview(chunk.error) != b"null":
            self.error = event[5:].strip()
            return b""
        if chunk.usage is not None:
            self._count(chunk.usage)
        if len(chunk.choices) != 1:
            return b""
        self.begun = True
        return self._choice(event, chunk.choices[0])

    def _choice(self, event: bytes, choice: _Choice) -> bytes:
        if choice.finish_reason == "abort":
            self.error = ABORTED
            return b""
        if self._anew:
            return self._again(event, choice)
        try:
            new = self.transcript.take(choice.token_ids, choice.text, choice.finish_reason)
        except Differs:
            self.error = error_body(
                "The answer could not be continued in the same words.", kind="server_error", code="engine_failed"
            )
            return b""
        if not new and not choice.finish_reason and not self.shows_ids:
            return b""
        said: dict[str, Any] = {"text": new} if self._ask.kind is Kind.COMPLETION else {"delta": {"content": new}}
        return self._say(choice, said)

    def _again(self, event: bytes, choice: _Choice) -> bytes:
        self.transcript.keep(event)
        delta = {name: value for name, value in (choice.delta or {}).items() if name != "role"}
        if not choice.finish_reason and all(bytes(value) in (b"null", b'""') for value in delta.values()):
            return b""
        return self._say(choice, {"delta": delta})

    def _say(self, choice: _Choice, said: dict[str, Any]) -> bytes:
        self.count += 1
        ids = choice.token_ids if self.shows_ids else _NULL
        body = {"index": 0, **said, "logprobs": None, "finish_reason": choice.finish_reason}
        if choice.finish_reason or self._ask.kind is Kind.COMPLETION:
            body["stop_reason"] = choice.stop_reason
        return _sse(self._ask, self.transcript.head, [{**body, "token_ids": ids}])

    def _count(self, usage: Usage) -> None:
        self.usage = usage if self._anew else _usage(self.transcript, self._before + (usage.completion_tokens or 0))


def closing(ask: Ask, transcript: Transcript, usage: Usage | None = None) -> bytes:
    """What ends a stream whose text is all there."""
    if not ask.wants_usage or transcript.usage_told:
        return DONE + b"\n\n"
    usage = usage or whole_usage(transcript)
    total = usage.prompt_tokens + (usage.completion_tokens or 0)
    told = {
        "prompt_tokens": usage.prompt_tokens, "total_tokens": total, "completion_tokens": usage.completion_tokens,
    }  # fmt: skip
    return _sse(ask, transcript.head, [], usage=told) + DONE + b"\n\n"


def whole_usage(transcript: Transcript) -> Usage:
    transcript.settle()
    return _usage(transcript, transcript.count)


def _usage(transcript: Transcript, completion: int) -> Usage:
    """The prompt counts once, as the client sent it."""
    return Usage(prompt_tokens=transcript.prompt_count, completion_tokens=completion)


def _sse(ask: Ask, head: Head | None, choices: list[dict[str, Any]], **more: Any) -> bytes:
    assert head is not None
    event = {"id": head.id, "object": OBJECTS[ask.kind], "created": head.created, "model": head.model}
    return b"data: " + _encode({**event, "choices": choices, **more}) + b"\n\n"
