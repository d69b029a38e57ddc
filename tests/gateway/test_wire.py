"""The pure parts: request bodies, event streams, token buckets, demand."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from controlplane.gateway.buckets import Buckets
from controlplane.gateway.demand import Demand, Minute
from controlplane.gateway.openai import ApiError, Kind, parse
from controlplane.gateway.sse import LONGEST_EVENT, Events, StreamError, error_status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OURS = {"model", "prompt", "stream", "stream_options", "kv_transfer_params", "ec_transfer_params", "vllm_xargs"}


@given(more=st.dictionaries(st.text().filter(lambda name: name not in OURS | {"request_id"}), JSON, max_size=5))
def test_whatever_else_a_client_sends_reaches_decode_as_it_was(more: dict[str, object]) -> None:
    body = {"model": "tiny", "prompt": "x", **more}
    ask = parse(json.dumps(body).encode(), Kind.COMPLETION)
    assert json.loads(ask.for_answer(None)) == body
    handed = json.loads(ask.for_answer(Raw(b'{"remote_block_ids":[[1]]}')))
    assert handed == {**body, "kv_transfer_params": {"remote_block_ids": [[1]]}}


def test_the_blocks_whereabouts_are_passed_on_to_the_byte() -> None:
    """An engine's numbers must not be written anew by somebody who reads them differently."""
    ask = parse(b'{"model":"tiny","prompt":"x"}', Kind.COMPLETION)
    params = b'{"at": 1.10e2,"id":12345678901234567890123,"x":0.1000}'
    assert params in ask.for_answer(Raw(params))


@given(raw=st.binary(max_size=200))
def test_no_body_crashes_the_parser(raw: bytes) -> None:
    try:
        parse(raw, Kind.CHAT)
    except ApiError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    ("choice", "sent"), [("auto", "auto"), ("none", "none"), ("required", "none"), ({"type": "function"}, "none")]
)
def test_a_prefill_makes_no_tool_call(choice: object, sent: object) -> None:
    body = {"model": "tiny", "messages": [], "tools": [{}], "tool_choice": choice}
    prefill = json.loads(parse(json.dumps(body).encode(), Kind.CHAT).for_prefill())
    assert prefill["tool_choice"] == sent
    assert prefill["tools"] == [{}]


def chunk(text: str | None, usage: dict[str, int] | None = None) -> bytes:
    body: dict[str, object] = {
        "id": "x",
        "choices": [] if text is None else [{"delta": {"content": text}, "finish_reason": None}],
    }
    if usage is not None:
        body["usage"] = usage
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


TEXTS = st.lists(st.sampled_from(["a", "usage", '"usage"', "[DONE]", '"error"', "é漢", "\n\n", "data: x"]), max_size=6)


@given(texts=TEXTS, cuts=st.lists(st.integers(0, 2000), max_size=12), strip=st.booleans())
def test_however_a_stream_is_cut_what_passes_is_the_same(texts: list[str], cuts: list[int], strip: bool) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": len(texts)}
    kept = b"".join(chunk(text) for text in texts)
    stream = kept + chunk(None, usage) + b"data: [DONE]\n\n"
    events = Events(strip_usage=strip)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    passed = b"".join(piece if events.is_plain(piece) else events.feed(piece) for piece in pieces)
    assert passed == (kept + b"data: [DONE]\n\n" if strip else stream)
    assert events.count == len(texts)
    assert events.done
    assert events.usage is not None and events.usage.completion_tokens == len(texts)


def test_plain_are_single_whole_events_of_text_only() -> None:
    events = Events(strip_usage=True)
    text = chunk("a")
    assert events.is_plain(text)
    for piece in (text + text, text[:-1], text[3:], chunk("a", {"prompt_tokens": 1}), b"data: [DONE]\n\n",
                  b'data: {"error":{}}\n\n', b": ping\n\n", b""):  # fmt: skip
        assert not events.is_plain(piece)
    events.feed(text[:20])
    assert not events.is_plain(text), "the rest of another comes first"
    assert events.count == 1


def test_usage_on_every_event_is_passed_and_the_last_counts() -> None:
    events = Events(strip_usage=True)
    stream = [
        chunk("a", {"prompt_tokens": 3, "completion_tokens": 1}),
        chunk("b", {"prompt_tokens": 3, "completion_tokens": 2}),
    ]
    assert [events.feed(piece) for piece in stream] == stream
    assert events.usage is not None and events.usage.completion_tokens == 2


def test_an_event_without_end_is_refused() -> None:
    events = Events(strip_usage=True)
    with pytest.raises(StreamError):
        for _ in range(3):
            events.feed(b"data: " + b"x" * (LONGEST_EVENT // 2))


def test_what_is_no_json_is_refused_where_it_would_have_to_be_read() -> None:
    with pytest.raises(StreamError):
        Events(strip_usage=True).feed(b'data: {"usage" nonsense\n\n')


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"error":{"code":400}}', 400), (b'{"error":{"code":"x"}}', 502), (b'{"error":{}}', 502), (b"{", 502),
     (b'{"error":{"code":200}}', 502)],
)  # fmt: skip
def test_the_status_of_an_error_event(body: bytes, status: int) -> None:
    assert error_status(body) == status


def test_a_bucket_holds_a_minutes_requests_and_fills_evenly() -> None:
    buckets = Buckets()
    assert [buckets.take(1, 2, 0.0) for _ in range(3)] == [0, 0, 30]
    assert buckets.take(2, 2, 0.0) == 0, "each key has its own"
    assert buckets.take(1, 2, 29.0) == 1
    assert buckets.take(1, 2, 30.0) == 0
    assert [buckets.take(1, 2, 1000.0) for _ in range(3)] == [0, 0, 30], "it does not overflow"


@given(per_minute=st.integers(1, 600), gaps=st.lists(st.floats(0, 5), max_size=200))
def test_no_minute_sees_more_than_two_of_the_limit(per_minute: int, gaps: list[float]) -> None:
    buckets, now, passed = Buckets(), 0.0, []
    for gap in gaps:
        now += gap
        if buckets.take(1, per_minute, now) == 0:
            passed.append(now)
    for start in passed:
        assert sum(1 for at in passed if start <= at < start + 60) <= 2 * per_minute


def test_a_bucket_of_a_key_that_is_gone_is_forgotten() -> None:
    buckets = Buckets()
    buckets.take(1, 1, 0.0)
    buckets.keep({2})
    assert buckets.take(1, 1, 0.0) == 0


def test_active_seconds_are_those_with_a_request_in_flight_in_the_minute_they_lie_in() -> None:
    demand = Demand()
    demand.begin("a", 50.0)
    demand.begin("a", 55.0)
    demand.end("a", 58.0, prompt=10, completion=2, failed=False)
    demand.end("a", 70.0, prompt=20, completion=3, failed=True)
    demand.begin("a", 75.0)
    assert demand.take(80.0) == {
        ("a", 0): Minute(2, 10.0, 2, 10, 2, 0),
        ("a", 60): Minute(1, 15.0, 1, 20, 3, 1),
    }
    assert demand.take(90.0) == {("a", 60): Minute(0, 10.0, 1)}, "still running"


def test_what_could_not_be_written_is_added_to_what_came_since() -> None:
    demand = Demand()
    demand.begin("a", 1.0)
    demand.end("a", 2.0, prompt=1, completion=1, failed=False)
    taken = demand.take(3.0)
    demand.begin("a", 4.0)
    demand.give_back(taken)
    assert demand.take(5.0)[("a", 0)] == Minute(2, 2.0, 1, 1, 1, 0)


def test_a_clock_that_leaps_makes_no_active_hours() -> None:
    demand = Demand()
    demand.begin("a", 0.0)
    assert sum(minute.active_s for minute in demand.take(1.8e9).values()) <= 600


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 100)), min_size=1, max_size=10))
def test_active_seconds_are_the_union_of_the_requests(spans: list[tuple[float, float]]) -> None:
    demand, moments = Demand(), []
    for begin, length in spans:
        moments += [(begin, 0), (begin + length, 1)]
    running = active = last = 0.0
    for at, kind in sorted(moments):
        active += (at - last) if running else 0.0
        last = at
        running += 1 if kind == 0 else -1
        if kind == 0:
            demand.begin("a", at)
        else:
            demand.end("a", at, prompt=0, completion=0, failed=False)
    minutes = demand.take(last)
    assert sum(minute.active_s for minute in minutes.values()) == pytest.approx(active)
    assert all(minute.active_s <= 60.0 + 1e-9 for minute in minutes.values())
    assert sum(minute.arrivals for minute in minutes.values()) == len(spans)
