"""A pooled model that is woken as a pair: nobody is served before both halves are there and were tried together."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from controlplane.domain.routing import Ready
from tests.gateway.conftest import MakePlace, Place, eventually
from tests.standin_fabric import Fabric


@pytest.fixture
async def asleep(make_place: MakePlace) -> Place:
    """Engine 1 will prefill, engine 2 decode; none is there yet."""
    place = await make_place()
    await place.engine()
    await place.engine()
    place.show(pair=True)
    return place


async def held(place: Place, count: int) -> list[asyncio.Task[httpx.Response]]:
    asked = [asyncio.create_task(place.complete()) for _ in range(count)]
    await eventually(lambda: sum(place.gateway.hold.lengths().values()) == count)
    return asked


@pytest.mark.parametrize("first", ["prefill", "decode"])
@pytest.mark.parametrize("alike", [False, True])
async def test_requests_wait_for_the_whole_pair_and_then_take_both_steps(
    asleep: Place, first: str, alike: bool
) -> None:
    asked = await held(asleep, 5)
    asleep.engines[1].act.first_s = 0.1
    asleep.show(pair=True, alike=alike, **{first: (1 if first == "prefill" else 2,)})
    await eventually(lambda: asleep.told)
    await asyncio.sleep(0.1)
    assert (asleep.used.prefill, asleep.used.decode) == ((), ())
    assert sum(asleep.gateway.hold.lengths().values()) == 5

    asleep.show(pair=True, alike=alike, prefill=(1,), decode=(2,))
    assert asleep.used.decode == (), "they have not been tried together"
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-forebay-path"] for answer in answers} == {"two_step"}
    assert {answer.headers["x-forebay-prefill"] for answer in answers} == {"e1"}
    assert asleep.used == Ready((1,), (2,), alike=alike)


async def test_a_pair_that_serves_goes_on_as_any_other_when_its_prefill_engine_is_gone(asleep: Place) -> None:
    asleep.show(pair=True, prefill=(1,), decode=(2,))
    await eventually(lambda: asleep.used == Ready((1,), (2,)))
    asleep.show(pair=True, decode=(2,))
    answer = await asleep.complete()
    assert (answer.status_code, answer.headers["x-forebay-path"]) == (200, "direct")
    asleep.show(pair=True, prefill=(1,), decode=(2,))
    await eventually(lambda: asleep.used == Ready((1,), (2,)))


async def test_when_its_decode_engine_is_gone_requests_wait_for_a_whole_one(asleep: Place) -> None:
    asleep.show(pair=True, prefill=(1,), decode=(2,))
    await eventually(lambda: asleep.used == Ready((1,), (2,)))
    asleep.show(pair=True, prefill=(1,))
    [asked] = await held(asleep, 1)
    asleep.since[2] = 2.0  # another process
    asleep.show(pair=True, prefill=(1,), decode=(2,))
    assert (await asked).headers["x-forebay-path"] == "two_step"


async def test_a_pair_that_cannot_exchange_kv_is_known_for_it_and_decode_serves_alone(asleep: Place) -> None:
    asleep.engines[1].fabric = Fabric()  # cut off
    asleep.engines[1].act.status = 500
    asked = await held(asleep, 2)
    asleep.show(pair=True, prefill=(1,), decode=(2,))
    answers = await asyncio.gather(*asked)
    assert {answer.headers["x-forebay-path"] for answer in answers} == {"direct"}
    assert any(not passed for _, _, passed, _ in asleep.told)


async def test_an_aggregated_engine_that_somebody_gave_it_serves_meanwhile(asleep: Place) -> None:
    await asleep.engine()
    asleep.show(pair=True, decode=(2,), aggregated=(3,))
    answer = await asleep.complete()
    assert answer.headers["x-forebay-path"] == "aggregated"
    assert asleep.used.decode == ()
