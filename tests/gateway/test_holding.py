"""A request for a pooled model that nothing serves is held until it is woken: bounded, in order, not for ever."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import httpx
import pytest

from controlplane.domain.routing import Ready
from controlplane.fleet.services.waking import Standing, State
from controlplane.gateway.holding import ASK_S
from controlplane.gateway.run import end
from controlplane.gateway.table import Key
from tests.gateway.conftest import KEY, MakeSite, Site, eventually
from tests.gateway.fleet import Fleet
from tests.standin_words import Behaviour


async def asleep(make_site: MakeSite, fleet: Fleet, **limits: float) -> Site:
    site = await make_site(prefill=0, decode=0, aggregated=1, wake=fleet.wake, **limits)
    site.serve_as(ready=Ready(), pooled=True)
    return site


def awake(site: Site) -> None:
    site.serve_as(ready=Ready(aggregated=(1,)))


async def held(site: Site, count: int) -> None:
    await eventually(lambda: sum(site.gateway.hold.lengths().values()) == count, 20)


def ask(site: Site, count: int, key: str = KEY, model: str = "tiny") -> list[asyncio.Task[httpx.Response]]:
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": model, "max_tokens": 2}
    return [
        asyncio.create_task(
            site.client.post("/v1/completions", json={**body, "prompt": f"{i:03} and more"}, headers=headers)
        )
        for i in range(count)
    ]


async def test_two_hundred_at_once_wait_for_one_model_and_are_all_served_in_order(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet)
    asked = []
    for batch in range(10):
        asked += ask(site, 20)
        await held(site, 20 * (batch + 1))
    await eventually(lambda: fleet.asked[-1] == {"tiny": 200})
    assert not site.aggregated[0].served
    awake(site)
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert len(site.aggregated[0].served) == 200
    assert site.gateway.hold.lengths() == {}
    trips = site.trips()
    assert all(trip.held_s > 0 and trip.status == 200 for trip in trips)
    assert "wake;dur=" in answers[0].headers["server-timing"]


async def test_they_are_let_go_in_the_order_of_their_coming_each_key_in_turn(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet)
    site.set_keys(one=Key(1), two=Key(2))
    asked = []
    for number, key in enumerate(["one", "one", "one", "two"]):
        body = {"model": "tiny", "max_tokens": 1, "prompt": f"{key}-{number}"}
        asked.append(asyncio.create_task(
            site.client.post("/v1/completions", json=body, headers={"Authorization": f"Bearer {key}"})
        ))  # fmt: skip
        await held(site, number + 1)
    awake(site)
    await asyncio.gather(*asked)
    assert [seen.body["prompt"] for seen in site.aggregated[0].served] == ["one-0", "two-3", "one-1", "one-2"]


async def test_a_model_that_cannot_be_started_is_told_to_everybody_at_once(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet)
    asked = ask(site, 5)
    await held(site, 5)
    fleet.standing = Standing(State.FAILED, expected_s=30.0, message="ValueError: /secret/path.safetensors")
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"activation_failed"}
    assert {answer.headers["retry-after"] for answer in answers} == {"30"}
    told = {answer.json()["error"]["message"] for answer in answers}
    assert told == {
        "The model 'tiny' could not be started: its model files could not be loaded. It is tried again in 30 s."
    }
    assert site.gateway.hold.lengths() == {}


async def test_after_the_deadline_it_is_told_when_to_come_again(make_site: MakeSite) -> None:
    site = await asleep(make_site, Fleet(), hold_s=0.3)
    began = time.monotonic()
    [answer] = await asyncio.gather(*ask(site, 1))
    assert time.monotonic() - began < 5
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "4")
    assert "not ready within 0 s" in answer.json()["error"]["message"]


async def test_who_waits_for_a_slot_says_so_and_is_asked_for_when_one_may_be_had(make_site: MakeSite) -> None:
    fleet = Fleet()
    fleet.standing = Standing(State.WAITING, message="every slot is busy")
    site = await asleep(make_site, fleet)
    hold = site.gateway.hold
    wanted: list[bool] = []
    hold.slot_wanted = lambda: wanted.append(hold.wants_slot)
    assert not hold.wants_slot
    asked = ask(site, 1)
    await eventually(lambda: hold.wants_slot)
    before, began = len(fleet.asked), time.monotonic()
    for more in range(5):
        await asyncio.to_thread(hold.ask_soon)
        await eventually(lambda count=before + more: len(fleet.asked) > count)
    assert time.monotonic() - began < 5 * ASK_S, "it did not wait for the next time that it asks by itself"
    fleet.standing = Standing(State.STARTING)
    await asyncio.to_thread(hold.ask_soon)
    await eventually(lambda: not hold.wants_slot)
    assert wanted == [True], "once, when it has become so"
    awake(site)
    await asyncio.gather(*asked)


async def test_who_hangs_up_leaves_the_line_and_the_others_wait_on(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet)
    asked = ask(site, 3)
    await held(site, 3)
    asked[0].cancel()
    await held(site, 2)
    await eventually(lambda: fleet.asked[-1] == {"tiny": 2})
    awake(site)
    answers = await asyncio.gather(*asked[1:])
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("limits", [{"hold_each": 4}, {"hold_all": 4}, {"hold_bytes": 90}])
async def test_the_longest_line_gives_way_to_a_key_with_less(make_site: MakeSite, limits: dict[str, int]) -> None:
    site = await asleep(make_site, Fleet(), **limits)
    site.set_keys(much=Key(1), little=Key(2))
    many = ask(site, 4, "much")
    await held(site, 4)
    [refused] = await asyncio.gather(*ask(site, 1, "much"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    late = ask(site, 1, "little")
    [gone] = (await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED))[0]
    assert gone.result().json()["error"]["code"] == "overloaded"
    awake(site)
    answers = await asyncio.gather(*late, *(one for one in many if one is not gone))
    assert [answer.status_code for answer in answers] == [200] * 4


async def test_a_model_that_many_wait_for_gives_way_to_one_that_nobody_waits_for(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet, hold_all=4)
    site.table.served["rare"] = replace(site.table.served["tiny"], name="rare")
    many = ask(site, 4)
    await held(site, 4)
    await eventually(lambda: len(fleet.asked) > 1)
    rare = ask(site, 1, model="rare")
    [gone] = (await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED))[0]
    assert (gone.result().json()["error"]["code"], gone.result().headers["retry-after"]) == ("overloaded", "4")
    assert site.gateway.hold.lengths() == {"tiny": 3, "rare": 1}
    [refused] = await asyncio.gather(*ask(site, 1))
    assert refused.json()["error"]["code"] == "overloaded", "who waits for the longer line takes nobody's place"
    awake(site)
    site.table.served["rare"] = replace(site.table.served["tiny"], name="rare")
    answers = await asyncio.gather(*rare, *(one for one in many if one is not gone))
    assert [answer.status_code for answer in answers] == [200] * 4


async def test_while_the_database_is_away_they_wait_and_it_is_asked_again(make_site: MakeSite) -> None:
    fleet = Fleet(down=True)
    site = await asleep(make_site, fleet)
    asked = ask(site, 1)
    await eventually(lambda: len(fleet.asked) >= 2)
    fleet.down = False
    awake(site)
    assert (await asked[0]).status_code == 200


async def test_a_model_that_is_pooled_no_longer_is_not_waited_for(make_site: MakeSite) -> None:
    site = await asleep(make_site, Fleet(Standing(State.ABSENT)))
    [answer] = await asyncio.gather(*ask(site, 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")


def stream(site: Site) -> asyncio.Task[httpx.Response]:
    body = {"model": "tiny", "prompt": "more", "max_tokens": 2, "stream": True}
    return asyncio.create_task(site.client.post("/v1/completions", json=body))


async def murmured(site: Site, task: asyncio.Task[httpx.Response]) -> None:
    """Until a stream that waits has been opened by a comment."""
    await held(site, 1)
    await asyncio.sleep(0.2)
    assert not task.done()


@pytest.mark.parametrize("continuations", [0, 3])
async def test_a_stream_that_waits_hears_that_somebody_is_there_where_that_is_wanted(
    make_site: MakeSite, continuations: int
) -> None:
    site = await asleep(make_site, Fleet(), hold_comments_s=0.05, continuations=continuations)
    task = stream(site)
    await murmured(site, task)
    awake(site)
    answer = await task
    said = answer.text.split("\n\n")
    murmurs = said.count(": waking")
    assert said[:murmurs] == [": waking"] * murmurs and murmurs >= 2
    assert said[-2] == "data: [DONE]"
    assert "".join(json.loads(event[6:])["choices"][0]["text"] for event in said[murmurs:-2]) == " t0 t1"
    assert answer.headers["content-type"].startswith("text/event-stream")
    [trip] = site.trips()
    assert (trip.outcome, trip.status, trip.continued, trip.decode) == ("ok", 200, 0, "node/aggregated0")
    assert trip.held_s > 0.1


async def test_by_default_a_stream_that_waits_hears_nothing(make_site: MakeSite) -> None:
    site = await asleep(make_site, Fleet())
    task = stream(site)
    await murmured(site, task)
    awake(site)
    answer = await task
    assert ": waking" not in answer.text
    assert answer.headers["x-forebay-decode"] == "node/aggregated0"


async def test_who_does_not_stream_hears_nothing_and_gets_the_status(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet, hold_comments_s=0.05)
    [task] = ask(site, 1)
    await murmured(site, task)
    fleet.standing = Standing(State.FAILED, expected_s=30.0)
    assert (await task).status_code == 503


@pytest.mark.parametrize("how", ["failed", "too late", "shut down", "refused", "engine broken"])
async def test_once_a_stream_has_begun_what_goes_wrong_is_told_in_it(make_site: MakeSite, how: str) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet, hold_comments_s=0.05, hold_s=1.0 if how == "too late" else 60.0)
    task = stream(site)
    await murmured(site, task)
    codes = {"failed": "activation_failed", "too late": "model_not_ready", "shut down": "shutting_down"}
    if how == "failed":
        fleet.standing = Standing(State.FAILED, expected_s=30.0)
    elif how == "shut down":
        site.gateway.hold.close()
    elif how != "too late":
        site.aggregated[0].act = Behaviour(status=400 if how == "refused" else 500)
        awake(site)
    answer = await task
    assert answer.status_code == 200
    [*murmurs, event, end] = answer.text.split("\n\n")
    assert set(murmurs) == {": waking"}
    assert end == ""
    error = json.loads(event.removeprefix("data: "))["error"]
    assert error["code"] == codes.get(how, "engines_failed" if how == "engine broken" else error["code"])
    [trip] = site.trips()
    outcomes = {"shut down": "rejected", "refused": "client_error"}
    assert (trip.status, trip.outcome) == (200, outcomes.get(how, "error"))


async def test_who_hangs_up_while_comments_are_sent_leaves_the_line(make_site: MakeSite) -> None:
    site = await asleep(make_site, Fleet(), hold_comments_s=0.05)
    task = stream(site)
    await murmured(site, task)
    task.cancel()
    await held(site, 0)
    await eventually(lambda: site.trips())
    assert site.trips()[0].outcome == "cancelled"


async def test_at_shutdown_everybody_held_is_told_in_order_to_come_again(make_site: MakeSite) -> None:
    site = await asleep(make_site, Fleet())
    site.set_keys(one=Key(1), two=Key(2))
    asked = []
    for number, key in enumerate(["one", "one", "two"]):
        asked += ask(site, 1, key)
        await held(site, number + 1)
    await eventually(lambda: site.gateway.hold._lines["tiny"].standing)
    site.gateway.hold.close()
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"shutting_down"}
    assert {answer.headers["retry-after"] for answer in answers} == {"4"}, "when the engine should be there"
    assert [(trip.key, trip.outcome) for trip in site.trips()] == [(1, "rejected"), (2, "rejected"), (1, "rejected")]
    assert site.gateway.hold.lengths() == {}


async def test_once_it_is_closed_nobody_is_held(make_site: MakeSite) -> None:
    site = await asleep(make_site, Fleet())
    site.gateway.hold.close()
    [answer] = await asyncio.gather(*ask(site, 1))
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (
        503,
        "shutting_down",
        "1",
    )


async def test_the_end_of_the_process_waits_for_models_and_then_tells_who_is_held(make_site: MakeSite) -> None:
    site = await asleep(make_site, Fleet())
    asked = ask(site, 3)
    await held(site, 3)
    listener = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    await end(site.gateway, listener, site.protocol, drain_s=0.2)
    answers = await asyncio.gather(*asked)
    assert [answer.json()["error"]["code"] for answer in answers] == ["shutting_down"] * 3


async def test_one_that_is_served_is_not_held_and_nobody_is_asked(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await asleep(make_site, fleet)
    awake(site)
    [answer] = await asyncio.gather(*ask(site, 1))
    assert answer.status_code == 200
    assert "wake" not in answer.headers["server-timing"]
    assert fleet.asked == []
