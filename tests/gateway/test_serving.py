"""What a good request goes through: two steps, one step, streamed and whole, and what is told and noted of it."""

from __future__ import annotations

import json

import pytest

from controlplane.domain.routing import Ready
from tests.gateway.conftest import PROMPT, MakeSite, events


async def test_a_completion_is_prefilled_then_decoded(make_site: MakeSite) -> None:
    site = await make_site()

    reply = await site.complete()

    assert reply.status_code == 200
    assert reply.json()["choices"][0]["text"] == "t0 t1 t2 t3"
    (first,), (second,) = site.prefill[0].bodies(), site.decode[0].bodies()
    assert first["max_tokens"] == 1
    assert first["stream"] is False
    assert first["kv_transfer_params"] == {"do_remote_decode": True, "do_remote_prefill": False}
    handed = second.pop("kv_transfer_params")
    assert handed["do_remote_prefill"] is True
    assert handed["remote_engine_id"] == "prefill0"
    assert second == {"model": "tiny", "prompt": PROMPT, "max_tokens": 4}


async def test_a_chat_is_prefilled_then_decoded(make_site: MakeSite) -> None:
    site = await make_site()
    reply = await site.chat(max_tokens=..., max_completion_tokens=3)
    assert reply.json()["choices"][0]["message"]["content"] == "t0 t1 t2"
    assert site.prefill[0].bodies()[0]["max_completion_tokens"] == 1
    assert site.decode[0].bodies()[0]["max_completion_tokens"] == 3


async def test_each_engine_gets_its_own_key_and_never_the_clients(make_site: MakeSite) -> None:
    site = await make_site()
    await site.complete()
    for engine in (site.prefill[0], site.decode[0]):
        assert engine.served[0].headers["authorization"] == f"Bearer {engine.key}"
        assert "fb-test" not in str(engine.served[0].headers)


async def test_the_headers_tell_who_served_and_how_long_each_step_took(make_site: MakeSite) -> None:
    site = await make_site()
    site.prefill[0].act.first_s = 0.05

    reply = await site.complete()

    assert reply.headers["x-forebay-path"] == "two_step"
    assert reply.headers["x-forebay-prefill"] == "node/prefill0"
    assert reply.headers["x-forebay-decode"] == "node/decode0"
    assert reply.headers["x-request-id"].startswith("req-")
    steps = dict(step.split(";dur=") for step in reply.headers["server-timing"].split(", "))
    assert 50 <= float(steps["prefill"]) <= float(steps["total"])


async def test_a_stream_arrives_event_by_event(make_site: MakeSite) -> None:
    site = await make_site()
    site.decode[0].act.itl_s = 0.02

    body = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5, "stream": True}
    pieces = []
    async with site.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert "ttft;dur=" in reply.headers["server-timing"]
        async for piece in reply.aiter_raw():
            pieces.append(piece)

    assert len(pieces) >= 5
    said = events(b"".join(pieces).decode())
    assert said[-1] == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in said[:-1]) == " t0 t1 t2 t3 t4"


@pytest.mark.parametrize("options", [..., None, {}, {"include_usage": False}])
async def test_a_stream_shows_no_usage_unless_asked_yet_it_is_recorded(make_site: MakeSite, options: object) -> None:
    site = await make_site()

    reply = await site.complete(stream=True, stream_options=options)

    assert "usage" not in reply.text
    assert all(json.loads(event)["choices"] for event in events(reply.text)[:-1])
    assert site.decode[0].bodies()[0]["stream_options"]["include_usage"] is True
    trip = await site.recorded()
    assert (trip.prompt_tokens, trip.completion_tokens) == (11, 4)


async def test_a_stream_shows_the_usage_when_asked(make_site: MakeSite) -> None:
    site = await make_site()
    reply = await site.complete(stream=True, stream_options={"include_usage": True})
    last = json.loads(events(reply.text)[-2])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert (await site.recorded()).completion_tokens == 4


async def test_one_record_holds_everything_of_a_streamed_request(make_site: MakeSite) -> None:
    site = await make_site()
    site.prefill[0].act.first_s, site.decode[0].act.first_s, site.decode[0].act.itl_s = 0.03, 0.02, 0.01

    reply = await site.chat(stream=True)

    trip = await site.recorded()
    assert trip.id == reply.headers["x-request-id"]
    assert (trip.key, trip.deployment, trip.kind, trip.streamed) == (1, "tiny", "chat", True)
    assert (trip.outcome, trip.status, trip.error, trip.attempts) == ("ok", 200, "", 1)
    assert (trip.path, trip.prefill, trip.decode) == ("two_step", "node/prefill0", "node/decode0")
    assert trip.prefill_ms is not None and trip.prefill_ms > 29.9
    assert trip.transfer_ms is not None and trip.transfer_ms > 19.9
    assert trip.ttft_ms is not None and trip.prefill_ms + trip.transfer_ms <= trip.ttft_ms < trip.total_ms
    assert trip.itl_ms is not None and 8 <= trip.itl_ms < trip.total_ms
    assert trip.total_ms >= 80


async def test_a_whole_answer_has_no_time_to_first_token(make_site: MakeSite) -> None:
    """The gateway cannot know it, so it does not say."""
    site = await make_site()
    await site.complete()
    trip = await site.recorded()
    assert trip.ttft_ms is None
    assert trip.itl_ms is None
    assert trip.prompt_tokens and trip.completion_tokens == 4


async def test_an_aggregated_engine_is_asked_directly(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=0, aggregated=1)
    reply = await site.complete(stream=True)
    assert reply.headers["x-forebay-path"] == "aggregated"
    assert "x-forebay-prefill" not in reply.headers
    assert "kv_transfer_params" not in site.aggregated[0].bodies()[0]


async def test_a_prompt_too_short_for_a_transfer_goes_straight_to_decode(make_site: MakeSite) -> None:
    site = await make_site()
    site.serve_as(min_transfer_tokens=50)

    short = await site.complete(prompt="word " * 20)
    long = await site.complete(prompt="word " * 60)

    assert short.headers["x-forebay-path"] == "direct"
    assert long.headers["x-forebay-path"] == "two_step"
    assert len(site.prefill[0].bodies()) == 1


async def test_the_length_of_token_ids_is_counted_not_guessed(make_site: MakeSite) -> None:
    site = await make_site()
    site.serve_as(min_transfer_tokens=10)
    assert (await site.complete(prompt=[12345] * 9)).headers["x-forebay-path"] == "direct"
    assert (await site.complete(prompt=[12345] * 10)).headers["x-forebay-path"] == "two_step"


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"best_of": 3},
        {"echo": True},
        {"prompt_logprobs": 1},
        {"use_beam_search": True},
        {"prompt": ["one", "two"]},
        {"prompt": [[1, 2], [3]]},
    ],
)
async def test_what_one_set_of_blocks_cannot_serve_goes_straight_to_decode(
    make_site: MakeSite, more: dict[str, object]
) -> None:
    """Each choice and each prompt would pull the same blocks, which are freed after the first pull."""
    site = await make_site()
    reply = await site.complete(**more)
    assert reply.status_code == 200
    assert reply.headers["x-forebay-path"] == "direct"
    assert not site.prefill[0].bodies()
    assert more.items() <= site.decode[0].bodies()[0].items()


async def test_what_does_not_fit_a_prefill_is_dropped_there_and_kept_for_decode(make_site: MakeSite) -> None:
    site = await make_site()
    more = {
        "stream": True, "stream_options": {"include_usage": True}, "n": 1, "logprobs": True, "top_logprobs": 3,
        "stop": ["."], "min_tokens": 3, "temperature": 0.5, "seed": 7, "chat_template_kwargs": {"a": 1},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "required",
        "response_format": {"type": "json_object"},
    }  # fmt: skip

    reply = await site.chat(**more)

    assert reply.status_code == 200
    first, second = site.prefill[0].bodies()[0], site.decode[0].bodies()[0]
    assert second.items() >= more.items()
    gone = {"stream_options", "n", "logprobs", "top_logprobs", "stop", "min_tokens", "response_format"}
    assert not gone & first.keys()
    # What shapes the prompt must be the same on both sides, or the KV is of another prompt.
    for name in ("messages", "tools", "chat_template_kwargs", "temperature", "seed"):
        assert first[name] == second[name]
    assert first["tool_choice"] == "none"


async def test_a_prefill_that_hands_nothing_over_is_no_reason_to_fail(make_site: MakeSite) -> None:
    site = await make_site()
    site.prefill[0].act.params = None
    reply = await site.complete()
    assert reply.status_code == 200
    assert reply.headers["x-forebay-path"] == "direct"
    assert "kv_transfer_params" not in site.decode[0].bodies()[0]


async def test_without_a_prefill_engine_decode_serves_alone(make_site: MakeSite) -> None:
    site = await make_site(prefill=0)
    reply = await site.complete()
    assert reply.status_code == 200
    assert reply.headers["x-forebay-path"] == "direct"


async def test_an_alias_is_served_and_recorded_under_the_deployments_name(make_site: MakeSite) -> None:
    site = await make_site()
    assert (await site.complete(model="small")).status_code == 200
    assert (await site.recorded()).deployment == "tiny"


async def test_requests_in_flight_spread_over_all_engines(make_site: MakeSite) -> None:
    import asyncio

    site = await make_site(prefill=2, decode=2)
    for engine in site.decode:
        engine.act.first_s = 0.2
    await asyncio.gather(*(site.complete() for _ in range(8)))
    assert [len(engine.bodies()) for engine in site.decode] == [4, 4]


async def test_prompts_that_begin_alike_go_to_the_same_idle_pair(make_site: MakeSite) -> None:
    site = await make_site(prefill=4, decode=4)
    start = "You are a careful assistant. " * 50
    replies = [await site.complete(prompt=f"{start}{i}") for i in range(5)]
    assert len({(r.headers["x-forebay-prefill"], r.headers["x-forebay-decode"]) for r in replies}) == 1
    others = [await site.complete(prompt=f"{i} {start}") for i in range(12)]
    assert len({r.headers["x-forebay-prefill"] for r in others}) > 1


async def test_connections_to_engines_are_kept(make_site: MakeSite) -> None:
    site = await make_site()
    for _ in range(5):
        await site.complete()
        await site.complete(stream=True)
    assert site.prefill[0].connections == 1
    assert site.decode[0].connections == 1


async def test_an_engine_that_leaves_the_table_is_not_asked(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=2)
    site.serve_as(ready=Ready(decode=(2,)))
    for _ in range(4):
        await site.complete()
    assert not site.decode[0].bodies()
    assert len(site.decode[1].bodies()) == 4


async def test_answers_in_many_pieces_are_put_together(make_site: MakeSite) -> None:
    site = await make_site()
    site.prefill[0].act.split = site.decode[0].act.split = 7
    whole, streamed = await site.complete(max_tokens=20), await site.complete(max_tokens=20, stream=True)
    assert whole.json()["choices"][0]["text"].split() == [f"t{i}" for i in range(20)]
    assert len(events(streamed.text)) == 21


async def test_a_large_prompt_and_a_large_answer_pass(make_site: MakeSite) -> None:
    site = await make_site()
    site.decode[0].act.padding = 300_000
    reply = await site.complete(prompt="x" * 2_000_000)
    assert reply.headers["x-forebay-path"] == "two_step"
    assert len(reply.text) > 300_000
    streamed = await site.complete(prompt="x" * 2_000_000, stream=True)
    assert len(streamed.text) > 4 * 300_000


async def test_http_1_0_clients_get_their_stream_too(make_site: MakeSite) -> None:
    import asyncio

    site = await make_site()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    body = json.dumps({"model": "tiny", "prompt": PROMPT, "max_tokens": 3, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.0\r\nauthorization: Bearer fb-test\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.read()).decode()
    writer.close()
    assert "transfer-encoding" not in answer.lower()
    assert events(answer.split("\r\n\r\n", 1)[1])[-1] == "[DONE]"
