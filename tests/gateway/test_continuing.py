"""An engine that dies in the middle of a stream: another goes on where it ended, and the client sees one answer."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.gateway.conftest import KEY, PROMPT, MakeSite
from tests.gateway.heard import GREEDY, KINDS, Heard, assert_one_answer, break_after, heard, make_speaking
from tests.toy_model import tokens_of


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
