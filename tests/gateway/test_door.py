"""An engine that is about to go shuts its door: its guard refuses. That is no failure, and no client hears of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.domain.routing import Most, Ready
from controlplane.gateway.failures import is_shut
from tests.gateway.conftest import MakePlace, MakeSite, eventually
from tests.gateway.fleet import Fleet
from tests.standin_words import Behaviour
from workers.engines.guard.forebay_guard import why


def shut() -> Behaviour:
    return Behaviour(status=503, status_body=why(503))


def test_the_words_of_the_guard_are_known_and_no_others() -> None:
    assert is_shut(503, why(503))
    assert not is_shut(500, why(503))
    for said in [
        b"",
        b"{}",
        b"[]",
        b'{"error": "forebay_guard"}',
        b'{"error": {"type": "x"}}',
        b"[" * 100_000,
        b"\xff",
        b'{"error": {"type": "\xff"}}',
        why(503) + b" " * 4096,
    ]:
        assert not is_shut(503, said), said[:20]


@pytest.mark.parametrize("stream", [False, True])
async def test_shut_doors_use_up_no_attempts(make_site: MakeSite, stream: bool) -> None:
    site = await make_site(prefill=0, decode=0, aggregated=5)
    for engine in site.aggregated[:4]:
        engine.act = shut()
    site.gateway.engines.load[5] += 1  # so that it is the last to be chosen
    reply = await site.complete(stream=stream)
    site.gateway.engines.load[5] -= 1
    assert reply.status_code == 200
    assert [len(engine.served) for engine in site.aggregated] == [1] * 5
    trip = await site.recorded()
    assert (trip.outcome, trip.error, trip.attempts) == ("ok", "", 5)
    assert not site.gateway.engines._suspects(site.table)


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"max_tokens": ...}])
async def test_the_only_engine_is_asked_again_when_its_door_opens(make_site: MakeSite, more: dict[str, object]) -> None:
    """Though requests wait for no engine to come here."""
    site = await make_site(prefill=0, decode=0, aggregated=1)
    site.aggregated[0].act = shut()
    asked = asyncio.create_task(site.chat(**more))
    await eventually(lambda: len(site.aggregated[0].served) > 2)
    site.aggregated[0].act = Behaviour(context=64)
    reply = await asked
    assert reply.status_code == 200, reply.text


async def test_a_door_that_stays_shut_is_not_waited_for_for_ever(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.gateway.proxy.DOOR_S", 0.3)
    monkeypatch.setattr("controlplane.gateway.avoiding.DOOR_S", 0.3)
    site = await make_site(prefill=1, decode=2)
    for engine in site.decode:
        engine.act = shut()
    reply = await site.complete()
    assert reply.status_code == 503 and "forebay_guard" not in reply.text
    assert reply.json()["error"]["code"] == "engines_failed"
    assert [len(engine.served) for engine in site.decode] == [4, 4], "once before each of three waits, and after them"
    assert site.gateway.engines._suspects(site.table), "no door is shut for so long"


async def test_an_engine_that_says_so_for_ever_is_not_asked_for_ever(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though requests wait far longer than that for an engine to come."""
    monkeypatch.setattr("controlplane.gateway.avoiding.DOOR_S", 0.3)
    site = await make_site(prefill=0, decode=0, aggregated=1, wait_s=1.5)
    site.aggregated[0].act = shut()
    reply = await site.complete()
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engines_failed")
    assert len(site.aggregated[0].served) == 4


async def test_who_meets_a_shut_door_lines_up_for_room_elsewhere(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=0, aggregated=2)
    site.serve_as(most=Most(aggregated=1))
    site.aggregated[0].act = shut()
    site.aggregated[1].act = Behaviour(first_s=0.1)
    asked = asyncio.gather(*(site.complete() for _ in range(5)))
    most = 0
    while not asked.done():
        most = max(most, site.aggregated[1].running)
        await asyncio.sleep(0.005)
    assert [reply.status_code for reply in await asked] == [200] * 5
    assert most == 1


async def test_a_model_that_goes_as_it_is_asked_for_is_woken_in_the_same_slot(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await make_site(prefill=0, decode=0, aggregated=1, wake=fleet.wake)
    site.serve_as(pooled=True)
    engine, row = site.aggregated[0], site.table.engines[1]
    engine.act = shut()
    asked = asyncio.create_task(site.complete())
    await eventually(lambda: engine.served)
    site.table.engines.pop(1)
    site.serve_as(ready=Ready())
    await eventually(lambda: site.gateway.hold.lengths() == {"tiny": 1}, 5)
    await eventually(lambda: fleet.asked)
    engine.act = Behaviour()
    site.table.engines[1] = replace(row, generation=9, since=99.0)
    site.serve_as(ready=Ready(aggregated=(1,)))
    assert (await asked).status_code == 200


async def test_one_that_failed_says_nothing_of_the_next_in_its_slot(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=0, aggregated=1, wait_s=5.0)
    engine, row = site.aggregated[0], site.table.engines[1]
    engine.act.status = 500
    asked = asyncio.create_task(site.complete())
    await eventually(lambda: site.gateway.engines.is_suspect(row))
    engine.act.status = 0
    site.table.engines[1] = new = replace(row, since=99.0)
    assert (await asked).status_code == 200
    site.gateway.engines.suspect(row)
    assert not site.gateway.engines.is_suspect(new)
    assert not site.gateway.engines._suspects(site.table)


async def test_a_decode_engine_that_goes_is_not_the_fault_of_the_prefill_engine(make_site: MakeSite) -> None:
    site = await make_site(prefill=1, decode=2)
    site.decode[0].act = shut()
    for i in range(6):
        reply = await site.complete(prompt=f"{i} something else entirely that is long enough")
        assert (reply.status_code, reply.headers["x-forebay-path"]) == (200, "two_step")
        assert reply.headers["x-forebay-decode"] == "node/decode1"
    assert site.decode[0].served
    assert not site.gateway.engines._suspects(site.table)
    handed = [body["kv_transfer_params"]["remote_request_id"] for engine in site.decode for body in engine.bodies()]
    assert len(handed) == len(set(handed))


async def test_a_prefill_engine_that_goes_is_done_without(make_site: MakeSite) -> None:
    site = await make_site(prefill=1, decode=1)
    site.prefill[0].act = shut()
    reply = await site.complete()
    assert (reply.status_code, reply.headers["x-forebay-path"]) == (200, "direct")
    assert not site.gateway.engines._suspects(site.table)


async def test_a_trial_that_meets_a_shut_door_is_none(make_place: MakePlace) -> None:
    place = await make_place()
    first, second = await place.engine(), await place.engine()
    place.show(aggregated=(first,))
    await eventually(lambda: len(place.told) == 1)
    place.engines[second].act = shut()
    place.show(aggregated=(first, second))
    await eventually(lambda: len(place.tried(second)) > 2)
    assert [finding[:3] for finding in place.told] == [(first, 1, True)]
    assert place.used.aggregated == (first,)
    place.engines[second].act = Behaviour()
    await eventually(lambda: place.used.aggregated == (first, second))
    assert [finding[:3] for finding in place.told] == [(first, 1, True), (second, 1, True)]
