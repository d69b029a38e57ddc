"""An engine that dies in the middle of a stream: another goes on where it ended, and the client sees one answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.gateway.conftest import KEY, PROMPT, MakeSite, Site, events, eventually
from tests.standin_engine import Behaviour
from tests.toy_model import Speaking, tokens_of

GREEDY = {"temperature": 0, "ignore_eos": True, "max_tokens": 24}
KINDS = ["complete", "chat"]


@dataclass
class Heard:
    """A stream as its client puts it together."""

    text: str
    finish: list[Any]
    usage: list[dict[str, Any]]
    ids: set[Any]
    roles: int
    ends: int
    errors: list[dict[str, Any]]
    chunks: list[dict[str, Any]]

    @classmethod
    def of(cls, body: str) -> Heard:
        said = [event for event in events(body) if not event.startswith(":")]
        chunks = [json.loads(event) for event in said if event != "[DONE]"]
        good = [chunk for chunk in chunks if "error" not in chunk]
        choices = [choice for chunk in good for choice in chunk["choices"]]
        return cls(
            text="".join(choice.get("text", choice.get("delta", {}).get("content", "")) for choice in choices),
            finish=[choice["finish_reason"] for choice in choices if choice["finish_reason"]],
            usage=[chunk["usage"] for chunk in good if chunk.get("usage")],
            ids={(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in good},
            roles=sum("role" in choice.get("delta", {}) for choice in choices),
            ends=said.count("[DONE]"),
            errors=[chunk["error"] for chunk in chunks if "error" in chunk],
            chunks=good,
        )


async def make_speaking(make_site: MakeSite, *, prefill: int = 0, decode: int = 2, **limits: Any) -> Site:
    """All engines hold one model and act alike; `deaths` counts for all."""
    site = await make_site(prefill=prefill, decode=decode, **limits)
    act = Behaviour(model=Speaking())
    for engine in [*site.prefill, *site.decode]:
        engine.act = act
    return site


async def heard(site: Site, kind: str, **body: Any) -> Heard:
    reply = await getattr(site, kind)(**{**GREEDY, "stream": True, **body})
    assert reply.status_code == 200, reply.text
    return Heard.of(reply.text)


def break_after(site: Site, tokens: int, *, how: str = "cut", deaths: int = 1) -> None:
    act = site.decode[0].act
    act.die_after, act.die_how, act.deaths = tokens, how, deaths


def assert_one_answer(got: Heard, whole: Heard) -> None:
    assert got.text == whole.text
    assert not got.errors
    assert got.finish == whole.finish
    assert got.usage == whole.usage
    assert len(got.ids) == 1
    assert got.roles == whole.roles
    assert got.ends == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefill", [0, 1])
async def test_wherever_the_engine_dies_the_joined_text_is_the_undisturbed_one(
    make_site: MakeSite, kind: str, prefill: int
) -> None:
    site = await make_speaking(make_site, prefill=prefill)
    for number in range(3):
        prompt = f"{number}: {PROMPT}"
        asked: dict[str, Any] = {"stream_options": {"include_usage": True}}
        asked |= {"messages": [{"role": "user", "content": prompt}]} if kind == "chat" else {"prompt": prompt}
        whole = await heard(site, kind, **asked)
        assert whole.usage[0]["completion_tokens"] == 24
        for tokens in range(1, 25):
            break_after(site, tokens)
            assert_one_answer(await heard(site, kind, **asked), whole)
            assert site.decode[0].act.deaths == 0, "it did die"
        break_after(site, -1)
        site.gateway.engines._suspect.clear()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["early", "error", "abort"])
async def test_however_the_engine_ends_its_stream_too_soon_it_goes_on(make_site: MakeSite, kind: str, how: str) -> None:
    site = await make_speaking(make_site)
    whole = await heard(site, kind)
    for tokens in (1, 7, 23):
        break_after(site, tokens, how=how)
        assert_one_answer(await heard(site, kind), whole)


async def test_an_engine_that_falls_silent_is_left(make_site: MakeSite) -> None:
    site = await make_speaking(make_site, silence_s=0.2)
    whole = await heard(site, "complete")
    break_after(site, 5, how="silent")
    assert_one_answer(await heard(site, "complete"), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("merge", [2, 3])
@pytest.mark.parametrize("stop", [[], ["wheel. a"], ["STOP", "\n"]])
@pytest.mark.parametrize("stop_shown", [False, True])
async def test_text_that_is_held_back_or_comes_in_lumps_is_neither_lost_nor_said_twice(
    make_site: MakeSite, kind: str, merge: int, stop: list[str], stop_shown: bool
) -> None:
    site = await make_speaking(make_site)
    asked = {"stop": stop, "include_stop_str_in_output": stop_shown, "max_tokens": 40}
    whole = await heard(site, kind, **asked)
    for tokens in range(1, 40, 3):
        site.decode[0].act.merge = merge
        break_after(site, tokens)
        got = await heard(site, kind, **asked)
        assert (got.text, got.finish, got.errors, got.ends) == (whole.text, whole.finish, [], 1)


async def test_a_stop_string_across_the_place_where_it_broke_still_stops(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    text = (await heard(site, "complete", max_tokens=60)).text
    ends = set()
    for at in range(8, 40, 5):
        stop = text[at : at + 6]
        for shown in (False, True):
            asked = {"stop": stop, "include_stop_str_in_output": shown, "max_tokens": 60}
            break_after(site, -1)
            whole = await heard(site, "complete", **asked)
            for tokens in range(1, 20, 2):
                break_after(site, tokens)
                got = await heard(site, "complete", **asked)
                assert (got.text, got.finish, got.errors) == (whole.text, whole.finish, [])
                ends.add(len(got.text))
    assert len(ends) > 5


async def test_a_long_stream_goes_on_after_its_beginning_was_settled(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    whole = await heard(site, "complete", max_tokens=1500)
    for merge, tokens in ((1, 1490), (1, 700), (2, 900)):
        site.decode[0].act.merge = merge
        break_after(site, tokens)
        got = await heard(site, "complete", max_tokens=1500)
        assert (got.text, got.errors) == (whole.text, [])


@pytest.mark.parametrize("kind", KINDS)
async def test_it_goes_on_again_when_the_next_engine_dies_too(make_site: MakeSite, kind: str) -> None:
    site = await make_speaking(make_site, decode=4)
    asked = {"stream_options": {"include_usage": True}, "max_tokens": 20}
    whole = await heard(site, kind, **asked)
    site.gateway.recorder._new.clear()
    break_after(site, 5, deaths=3)

    assert_one_answer(await heard(site, kind, **asked), whole)

    trip = await site.recorded()
    assert (trip.continued, trip.outcome, trip.status, trip.error) == (3, "ok", 200, "")
    left = trip.continued_from.split(", ")
    assert len({*left, trip.decode}) == 4, "each time another engine"
    assert trip.completion_tokens == 20
    assert trip.prompt_tokens == whole.usage[0]["prompt_tokens"]
    assert trip.ttft_ms is not None and trip.itl_ms is not None


async def test_the_times_it_goes_on_are_bounded(make_site: MakeSite) -> None:
    site = await make_speaking(make_site, decode=5, continuations=2)
    whole = await heard(site, "complete")
    site.gateway.recorder._new.clear()
    break_after(site, 3, deaths=5)

    got = await heard(site, "complete")

    assert got.errors and got.errors[0]["code"] == "engine_failed"
    assert whole.text.startswith(got.text)
    assert got.ends == 0
    trip = await site.recorded()
    assert (trip.continued, trip.outcome) == (2, "error")
    assert site.decode[0].act.deaths == 2


@pytest.mark.parametrize("said", ["off", "OFF", "0", "false", "no"])
async def test_a_client_can_do_without(make_site: MakeSite, said: str) -> None:
    site = await make_speaking(make_site)
    site.client.headers["X-Forebay-Continue"] = said
    break_after(site, 3)
    got = await heard(site, "complete")
    assert got.errors[0]["code"] == "engine_failed"
    assert len(site.decode[0].bodies()) + len(site.decode[1].bodies()) == 1
    assert not any("return_token_ids" in body for engine in site.decode for body in engine.bodies())


async def test_an_operator_can_do_without(make_site: MakeSite) -> None:
    site = await make_speaking(make_site, continuations=0)
    break_after(site, 3)
    assert (await heard(site, "complete")).errors


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("complete", {"n": 2}),
        ("complete", {"best_of": 2}),
        ("complete", {"logprobs": 1}),
        ("complete", {"echo": True}),
        ("complete", {"prompt_logprobs": 1}),
        ("complete", {"presence_penalty": 0.5}),
        ("complete", {"frequency_penalty": -0.5}),
        ("complete", {"bad_words": ["a b"]}),
        ("complete", {"response_format": {"type": "json_object"}}),
        ("complete", {"structured_outputs": {"regex": "a*"}}),
        ("complete", {"temperature": 0.7, "seed": 1}),
        ("complete", {"prompt": ["one", "two"]}),
        ("complete", {"vllm_xargs": {"a": 1}}),
        ("complete", {"something_new": 1}),
        ("complete", {"stop": ["a"], "min_tokens": 9}),
        ("complete", {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}),
        ("chat", {"logprobs": True, "top_logprobs": 2}),
        ("chat", {"modalities": ["text", "audio"]}),
        ("chat", {"include_reasoning": False}),
    ],
)
async def test_what_cannot_go_on_faithfully_ends_with_an_error(
    make_site: MakeSite, kind: str, more: dict[str, Any]
) -> None:
    site = await make_speaking(make_site)
    break_after(site, 3)
    got = await heard(site, kind, **more)
    assert got.errors[0]["code"] == "engine_failed"
    assert got.ends == 0
    trip = await site.recorded()
    assert (trip.outcome, trip.continued) == ("error", 0)


async def test_a_picture_is_not_in_the_tokens(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    break_after(site, 3)
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert (await heard(site, "chat", messages=[{"role": "user", "content": parts}])).errors
    break_after(site, 3)
    assert not (await heard(site, "chat", messages=[{"role": "user", "content": parts[:1]}])).errors


async def test_an_engine_that_tells_no_tokens_cannot_be_followed(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    site.decode[0].act.tells_ids = False
    break_after(site, 3)
    assert (await heard(site, "complete")).errors


async def test_sampled_text_goes_on_from_tokens_the_client_has_seen_in_full(make_site: MakeSite) -> None:
    """What lies behind was never seen, so that another draw in its place is as good."""
    site = await make_speaking(make_site)
    whole = await heard(site, "complete", temperature=0.8)
    for tokens in range(1, 24):
        break_after(site, tokens)
        assert_one_answer(await heard(site, "complete", temperature=0.8), whole)


async def test_the_next_engine_is_asked_for_the_rest_alone(make_site: MakeSite) -> None:
    site = await make_speaking(make_site, prefill=1)
    break_after(site, 10)
    await heard(site, "chat", min_tokens=15, top_p=0.9, chat_template_kwargs={"a": 1}, max_completion_tokens=20)
    site.decode[0].act.deaths = 0
    first, second = sorted((body for one in site.decode for body in one.bodies()), key=lambda body: "prompt" in body)
    assert first["return_token_ids"] is True
    prompt = tokens_of(first["messages"])
    assert second["prompt"][: len(prompt)] == prompt
    given = len(second["prompt"]) - len(prompt)
    assert 8 <= given <= 10, "tokens that give no whole character yet are drawn again"
    assert second["max_tokens"] == 20 - given
    assert second["min_tokens"] == 15 - given
    assert (second["top_p"], second["temperature"], second["ignore_eos"]) == (0.9, 0, True)
    assert not {"messages", "chat_template_kwargs", "max_completion_tokens"} & second.keys()
    assert second["kv_transfer_params"]["do_remote_prefill"] is True, "it goes the usual route"


async def test_a_chat_without_a_limit_may_fill_the_context_and_no_more(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    site.decode[0].act.context = 60
    whole = await heard(site, "chat", max_tokens=...)
    assert whole.finish == ["length"]
    for tokens in (1, 9, 20):
        break_after(site, tokens)
        assert_one_answer(await heard(site, "chat", max_tokens=...), whole)


async def test_a_client_that_asked_for_tokens_gets_each_once(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)

    def ids(got: Heard) -> list[int]:
        return [id for chunk in got.chunks for choice in chunk["choices"] for id in choice["token_ids"] or []]

    whole = await heard(site, "complete", return_token_ids=True)
    assert len(ids(whole)) == 24
    continued = 0
    for tokens in range(1, 24):
        break_after(site, tokens)
        got = await heard(site, "complete", return_token_ids=True)
        assert ids(whole)[: len(ids(got))] == ids(got)
        if not got.errors:  # else it broke inside a character, whose tokens would come twice
            assert (ids(got), got.text) == (ids(whole), whole.text)
            continued += 1
    assert continued > 10


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_client_sees_is_what_it_would_have_seen_without_tokens(make_site: MakeSite, kind: str) -> None:
    site = await make_speaking(make_site)
    noted = await getattr(site, kind)(**GREEDY, stream=True)
    site.client.headers["X-Forebay-Continue"] = "off"
    plain = await getattr(site, kind)(**GREEDY, stream=True)
    assert plain.text.replace("decode1", "decode0") == noted.text.replace("decode1", "decode0")
    assert 'token_ids":[' not in noted.text


async def test_a_comment_names_the_engine_it_goes_on_on(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    break_after(site, 3)
    reply = await site.complete(**GREEDY, stream=True)
    trip = await site.recorded()
    assert f"\n\n: continued on {trip.decode}\n\n" in reply.text
    assert trip.continued_from == reply.headers["x-forebay-decode"] != trip.decode


async def test_an_engine_that_refuses_to_go_on_leaves_the_client_an_error(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    site.decode[0].act.itl_s = 0.02
    break_after(site, 5)
    asked = asyncio.create_task(heard(site, "complete"))
    await eventually(lambda: any(engine.running for engine in site.decode))
    for engine in site.decode:
        if not engine.running:
            engine.act = Behaviour(status=400)
    assert (await asked).errors[0]["code"] == "engine_failed"


async def test_it_waits_for_an_engine_to_go_on_on(make_site: MakeSite) -> None:
    site = await make_speaking(make_site, decode=1, wait_s=10.0)
    whole = await heard(site, "complete")
    break_after(site, 6)
    engine = site.table.engines[1]
    asked = asyncio.create_task(heard(site, "complete"))
    await eventually(lambda: site.decode[0].act.deaths == 0)
    del site.table.engines[1]
    ready = site.table.served["tiny"].ready
    site.serve_as(ready=type(ready)())
    await asyncio.sleep(0.5)
    assert not asked.done()
    site.table.engines[1] = engine
    site.serve_as(ready=ready)
    assert_one_answer(await asked, whole)


async def test_a_client_that_hangs_up_while_it_goes_on_cancels_the_engines_work(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    site.decode[0].act.itl_s = 0.02
    break_after(site, 3)
    body = {"model": "tiny", "prompt": PROMPT, **GREEDY, "max_tokens": 5000, "stream": True}
    async with site.client.stream("POST", "/v1/completions", json=body) as reply:
        async for piece in reply.aiter_text():
            if ": continued" in piece:
                break
    await eventually(lambda: not any(engine.running for engine in site.decode))
    trip = await site.recorded()
    assert (trip.outcome, trip.continued) == ("cancelled", 1)
    assert not any(site.gateway.engines.load.values())


async def test_a_whole_answer_whose_engine_dies_is_asked_for_again(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    whole = (await site.complete(**GREEDY)).json()["choices"]
    site.decode[0].act.itl_s = 0.05
    asked = asyncio.create_task(site.complete(**GREEDY))
    await eventually(lambda: any(engine.running for engine in site.decode))
    busy = next(engine for engine in site.decode if engine.running)
    site.decode[0].act.itl_s = 0.0
    await busy.stop()
    reply = await asked
    assert (reply.status_code, reply.json()["choices"]) == (200, whole)


async def test_the_official_client_does_not_notice(make_site: MakeSite) -> None:
    site = await make_speaking(make_site)
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{site.port}/v1", api_key=KEY, max_retries=0)
    messages: Any = [{"role": "user", "content": PROMPT}]

    async def text() -> str:
        stream = await client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=24, temperature=0, stream=True, extra_body={"ignore_eos": True}
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    whole = await text()
    break_after(site, 11)
    assert await text() == whole
    assert site.decode[0].act.deaths == 0
    await client.close()
