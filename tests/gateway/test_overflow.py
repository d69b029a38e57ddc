"""What a dedicated deployment's own engines have no room for: an engine in the pool is asked for, and serves it."""

from __future__ import annotations

import asyncio
import time

import httpx

from controlplane.domain.routing import Most, Ready
from controlplane.fleet.services.waking import Standing, State
from controlplane.gateway.run import uses
from tests.gateway.conftest import MakeSite, Site, eventually
from tests.gateway.fleet import Fleet

OWN, LENT = 1, 2  # ids in the table: the decode engine, the aggregated one


async def full(make_site: MakeSite, fleet: Fleet, *, overflow: bool = True, **limits: float) -> Site:
    """One decode engine that takes one request, and a slot of the pool that is not lent yet."""
    site = await make_site(prefill=0, decode=1, aggregated=1, wake=fleet.wake, **{"overflow_s": 0.1} | limits)
    site.serve_as(ready=Ready(decode=(OWN,)), most=Most(decode=1), overflow=overflow)
    site.decode[0].act.first_s = 1.0
    return site


def lend(site: Site) -> None:
    site.serve_as(ready=Ready(decode=(OWN,), overflow=(LENT,)))


def ask(site: Site, count: int, **more: object) -> list[asyncio.Task[httpx.Response]]:
    return [asyncio.create_task(site.complete(prompt=f"{i:03} and more", **more)) for i in range(count)]


def paths(answers: list[httpx.Response]) -> list[str]:
    return sorted(answer.headers["x-forebay-path"] for answer in answers)


async def test_a_line_that_does_not_move_asks_for_a_slot_and_the_engine_there_serves_it(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await full(make_site, fleet)
    asked = ask(site, 4)
    await eventually(lambda: fleet.asked)
    assert fleet.asked == [{"tiny": 3}], "once, however many wait"
    lend(site)
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert "overflow" in paths(answers)
    assert "direct" in paths(answers), "its own engine goes on"
    assert {trip.deployment for trip in site.trips()} == {"tiny"}
    assert {trip.path for trip in site.trips()} <= {"overflow", "direct"}


async def test_who_has_room_needs_no_slot_and_one_that_is_there_is_not_used(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await full(make_site, fleet)
    site.decode[0].act.first_s = 0.0
    lend(site)
    for _ in range(3):
        assert paths([await site.complete()]) == ["direct"]
    assert not fleet.asked
    assert not site.aggregated[0].served


async def test_what_its_own_engines_have_no_room_for_goes_to_the_slot_at_once(make_site: MakeSite) -> None:
    site = await full(make_site, Fleet())
    lend(site)
    answers = await asyncio.gather(*ask(site, 5))
    assert paths(answers) == ["direct", *["overflow"] * 4]
    assert site.gateway.engines.lines.lengths() == {}


async def test_the_slot_takes_no_more_than_an_aggregated_engine_may(make_site: MakeSite) -> None:
    site = await full(make_site, Fleet())
    lend(site)
    site.serve_as(most=Most(decode=1, aggregated=2))
    site.aggregated[0].act.first_s = 0.3
    asked = ask(site, 6)
    await eventually(lambda: site.gateway.engines.lines.length("tiny") == 3)
    assert site.gateway.engines.load[LENT] == 2
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_a_line_that_moves_soon_enough_asks_for_nothing(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await full(make_site, fleet, overflow_s=5.0)
    site.decode[0].act.first_s = 0.1
    assert {answer.status_code for answer in await asyncio.gather(*ask(site, 6))} == {200}
    assert not fleet.asked


async def test_one_that_may_not_overflow_waits_in_line_as_ever(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await full(make_site, fleet, overflow=False)
    site.decode[0].act.first_s = 0.3
    assert paths(await asyncio.gather(*ask(site, 3))) == ["direct"] * 3
    assert not fleet.asked


async def test_where_no_slot_can_be_lent_the_line_goes_on_and_it_is_asked_for_again(make_site: MakeSite) -> None:
    fleet = Fleet(down=True)
    site = await full(make_site, fleet)
    asked = ask(site, 4)
    await eventually(lambda: fleet.asked)
    fleet.down, fleet.standing = False, Standing(State.WAITING, message="no slot is left")
    await eventually(lambda: len(fleet.asked) >= 2)
    assert paths(await asyncio.gather(*asked)) == ["direct"] * 4


async def test_without_any_engine_it_is_held_until_the_slot_serves(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await full(make_site, fleet)
    site.serve_as(ready=Ready())
    asked = ask(site, 3)
    await eventually(lambda: fleet.asked and fleet.asked[-1] == {"tiny": 3})
    site.serve_as(ready=Ready(overflow=(LENT,)))
    answers = await asyncio.gather(*asked)
    assert paths(answers) == ["overflow"] * 3
    assert all(trip.held_s > 0 for trip in site.trips())


async def test_an_engine_that_was_there_just_now_is_waited_for_before_a_slot_is_asked_for(make_site: MakeSite) -> None:
    fleet = Fleet()
    site = await full(make_site, fleet, wait_s=20.0)
    site.gateway.engines.sweep(site.table)
    site.serve_as(ready=Ready())
    [asked] = ask(site, 1)
    await asyncio.sleep(0.5)
    assert not fleet.asked
    site.serve_as(ready=Ready(decode=(OWN,)))
    assert paths([await asked]) == ["direct"]


async def test_one_without_an_engine_that_cannot_be_lent_a_slot_is_told_so(make_site: MakeSite) -> None:
    site = await full(make_site, Fleet(standing=Standing(State.WAITING)), hold_s=0.3)
    site.serve_as(ready=Ready())
    [answer] = await asyncio.gather(*ask(site, 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
    assert "No slot is free for it." in answer.json()["error"]["message"]


async def test_only_what_the_slot_serves_counts_as_its_use(make_site: MakeSite) -> None:
    site = await full(make_site, Fleet())
    lend(site)
    site.decode[0].act.first_s = site.aggregated[0].act.first_s = 4.0  # however slow the machine is
    before = time.time()
    asked = ask(site, 3)
    await eventually(lambda: site.gateway.engines.load[LENT] == 2)
    [(name, in_flight, at)] = uses(site.gateway, site.table)
    assert (name, in_flight, at >= before) == ("tiny", 2, True)
    await asyncio.gather(*asked)
    assert [use[:2] for use in uses(site.gateway, site.table)] == [("tiny", 0)]
    assert uses(site.gateway, site.table) == [], "nothing has changed since"
    site.serve_as(ready=Ready(decode=(OWN,)))
    await site.complete()
    assert uses(site.gateway, site.table) == [], "its own engine is none of the pool's"


async def test_when_the_slot_fails_its_own_engine_serves_in_its_turn(make_site: MakeSite) -> None:
    site = await full(make_site, Fleet())
    lend(site)
    await site.aggregated[0].stop()
    site.decode[0].act.first_s = 0.2
    answers = await asyncio.gather(*ask(site, 3))
    assert {answer.status_code for answer in answers} == {200}
    assert paths(answers) == ["direct"] * 3
