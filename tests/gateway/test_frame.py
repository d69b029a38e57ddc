"""What tells a plain event by its two ends: it must say just what a search through all of the event says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.gateway.frame import Frame
from controlplane.gateway.sse import Events
from controlplane.gateway.transcript import Transcript, without_ids

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["", '"', "\\", '\\"', "[", "]", '"token_ids":[1]', '","finish_reason":null', "\n\n", "data: x", '"usage"']
)
IDS = st.lists(st.integers(0, 200_000), min_size=1, max_size=4)


def event(text: str, ids: list[int] | None, *, chat: bool = False, finish: str | None = None, **more: Any) -> bytes:
    said = {"delta": {"content": text}} if chat else {"text": text}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish, "stop_reason": None, "token_ids": ids}
    body = {"id": "cmpl-1", "object": "x", "created": 1, "model": "tiny", "choices": [choice], **more}
    return b"data: " + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def frame(*, chat: bool = False) -> Frame:
    found = Frame.of(event(" a", [1], chat=chat))
    assert found is not None
    return found


@given(first=TEXTS, text=TEXTS, ids=IDS, chat=st.booleans())
@settings(deadline=None)  # machines are busy
def test_a_plain_event_loses_its_tokens_and_nothing_else(first: str, text: str, ids: list[int], chat: bool) -> None:
    found = Frame.of(event(first, [7], chat=chat))
    assert found is not None, "whatever its text"
    piece = event(text, ids, chat=chat)
    assert found.without_ids(piece) == event(text, None, chat=chat)


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


@given(text=TEXTS | st.integers(0, 5000).map("x".__mul__), ids=IDS)
def test_a_chunk_of_a_plain_event_becomes_one_without_its_tokens(text: str, ids: list[int]) -> None:
    assert frame().chunk_without_ids(chunk(event(text, ids))) == chunk(event(text, None))


@pytest.mark.parametrize("size", [*range(1, 300), *range(3900, 4120)])
def test_a_chunk_of_any_length_is_framed_rightly(size: int) -> None:
    assert frame().chunk_without_ids(chunk(event("x" * size, [1]))) == chunk(event("x" * size, None))


@given(pieces=st.lists(st.tuples(TEXTS, IDS), min_size=1, max_size=6))
def test_chunks_that_come_at_once_lose_their_tokens_one_by_one(pieces: list[tuple[str, list[int]]]) -> None:
    data = b"".join(chunk(event(text, ids)) for text, ids in pieces)
    assert frame().chunks_without_ids(data) == [chunk(event(text, None)) for text, _ in pieces]


PLAIN = chunk(event("a", [1]))


@pytest.mark.parametrize(
    "data",
    [
        chunk(event("a", [1], finish="stop")),
        chunk(event("a", [1], model="other")),
        chunk(event("a", [1]) + event("b", [2])),
        PLAIN + chunk(event("b", [2])),
        PLAIN + b"0\r\n\r\n",
        PLAIN[:-1],
        PLAIN[1:],
        b"0" + PLAIN,
        PLAIN.replace(b"\r\n", b";x=1\r\n", 1),
        b"%x" % (len(event("a", [1])) + 1) + PLAIN[PLAIN.index(b"\r") :],
        event("a", [1]),
        b"0\r\n\r\n",
        b"",
    ],
)
def test_any_other_chunk_is_parsed(data: bytes) -> None:
    assert frame().chunk_without_ids(data) is None


@pytest.mark.parametrize(
    "data",
    [
        PLAIN + chunk(event("b", [2], finish="stop")),
        PLAIN + chunk(event("b", [2], model="other")),
        PLAIN + chunk(event("b", [2]) + event("c", [3])),
        chunk(event("b", [2]) + event("c", [3])) + PLAIN,
        PLAIN + b"0\r\n\r\n",
        PLAIN + PLAIN[:-1],
        PLAIN + PLAIN[1:],
        PLAIN + b"0" + PLAIN,
        PLAIN + PLAIN.replace(b"\r\n", b";x=1\r\n", 1),
        PLAIN + event("a", [1]),
        PLAIN + b"\n",
        PLAIN + b"\r\n",
        PLAIN[:-1] + PLAIN,
        b"\n" + PLAIN,
    ],
)
def test_chunks_among_which_is_any_other_are_parsed(data: bytes) -> None:
    assert frame().chunks_without_ids(data) is None


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), at=st.integers(0, 2000), byte=st.integers(0, 255))
def test_with_any_other_byte_in_it_what_is_taken_is_still_what_it_says(texts: list[str], at: int, byte: int) -> None:
    whole = b"".join(chunk(event(text, [i])) for i, text in enumerate(texts))
    at %= len(whole)
    data = whole[:at] + bytes([byte]) + whole[at + 1 :]
    said = frame().chunks_without_ids(data)
    if said is not None:
        assert parsed(b"".join(said)) == [without_ids(piece[:-2]) + b"\n\n" for piece in parsed(data)]


def parsed(data: bytes) -> list[bytes]:
    """The bodies of chunks; fails when they are no such."""
    found = []
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        found.append(rest[:length])
        data = rest[length + 2 :]
    return found


def test_what_the_transcript_keeps_of_several_chunks_is_each_of_them() -> None:
    one, other = Transcript(), Transcript()
    first = event("a", [1], prompt_token_ids=[5, 6])
    pieces = [event(" b", [2]), event('"\\n', [3, 4]), event(" d", [5])]
    for transcript in (one, other):
        transcript.keep(first)
    one.keep(b"".join(map(chunk, pieces)))
    for piece in pieces:
        other.keep(piece)
    for transcript in (one, other):
        transcript.settle()
        assert not transcript.lost
    assert one.count == other.count == 5
    assert one.cut(repeatable=True, whole=True) == other.cut(repeatable=True, whole=True)


@pytest.mark.parametrize(
    "piece",
    [
        event("a", None),
        event("a", [1], finish="stop"),
        event("a", [1], usage={"prompt_tokens": 1}),
        event("a", [1], model="other"),
        event("a", [1], chat=True),
        event("a", [1]) + event("b", [2]),
        event("a", [1], finish="stop") + event("b", [2]),
        event("a", [1])[:-1],
        event("a", [1])[1:],
        b"data: [DONE]\n\n",
        b'data: {"error":{}}\n\n',
        b"",
    ],
)
def test_any_other_piece_is_looked_through(piece: bytes) -> None:
    assert frame().without_ids(piece) is None


@pytest.mark.parametrize(
    "piece",
    [
        event("a", None),
        event("a", [1], finish="stop"),
        event("a", [1], usage={"prompt_tokens": 1}),
        event("a", [1]) + event("b", [2]),
        b"data: [DONE]\n\n",
    ],
)
def test_no_frame_is_made_of_what_is_not_plain(piece: bytes) -> None:
    assert Frame.of(piece) is None


@given(texts=st.lists(st.tuples(TEXTS, IDS, st.sampled_from([True, False, None])), min_size=1, max_size=8))
def test_what_passes_is_the_same_with_a_frame_and_without(texts: list[tuple[str, list[int], bool | None]]) -> None:
    """`None`: an event that is not plain in between."""
    pieces = [event(t, ids, chat=bool(chat), finish="stop" if chat is None else None) for t, ids, chat in texts]
    events = Events(strip_usage=True, transcript=Transcript())
    passed = []
    for piece in pieces:
        said = events.plain(piece)
        passed.append(events.feed(piece) if said is None else said)
    assert passed == [without_ids(piece[:-2]) + b"\n\n" for piece in pieces]
    assert events.count == len(pieces)
