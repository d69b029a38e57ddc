"""When an answer does not go on at another engine, or not at once, and what the client gets then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.conftest import PROMPT, MakeSite, eventually
from tests.gateway.heard import GREEDY, assert_one_answer, break_after, heard, make_speaking
from tests.standin_words import Behaviour


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
