"""Engines that take only so many requests: the others wait in line, first come first served, and not for ever."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from controlplane.domain.routing import Most
from tests.gateway.conftest import MakeSite, Site, eventually


def limit(site: Site, **most: int) -> None:
    site.serve_as(most=Most(**most))


async def most_running(site: Site, asked: asyncio.Future[Any]) -> dict[str, int]:
    """The most requests that an engine of each role had at once, until `asked` is done."""
    seen = {"prefill": 0, "decode": 0}
    while not asked.done():
        for role in seen:
            seen[role] = max([seen[role], *(engine.running for engine in getattr(site, role))])
        await asyncio.sleep(0.002)
    return seen


async def test_no_engine_gets_more_than_its_role_takes_and_all_are_served(make_site: MakeSite) -> None:
    site = await make_site(prefill=2, decode=2)
    limit(site, prefill=1, decode=3)
    for engine in (*site.prefill, *site.decode):
        engine.act.first_s = 0.03
    asked = asyncio.gather(*(site.complete(prompt=f"{i} and more", stream=bool(i % 2)) for i in range(24)))

    seen = await most_running(site, asked)

    assert {reply.status_code for reply in await asked} == {200}
    assert {reply.headers["x-forebay-path"] for reply in await asked} == {"two_step"}, "none went around the prefill"
    assert seen["prefill"] == 1
    assert seen["decode"] <= 3, "of those that are to come from a prefill too"
    assert not any(site.gateway.engines.load.values())
    assert not site.gateway.engines.lines.lengths()


async def test_a_decode_engine_is_filled_up_to_what_it_takes(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=2)
    limit(site, decode=3)
    for engine in site.decode:
        engine.act.first_s = 0.1
    asked = asyncio.gather(*(site.complete(prompt=f"{i} and more") for i in range(18)))
    assert (await most_running(site, asked))["decode"] == 3
    assert {reply.status_code for reply in await asked} == {200}


async def test_they_are_served_in_the_order_of_their_coming(make_site: MakeSite) -> None:
    site = await make_site(prefill=0)
    limit(site, decode=1)
    site.decode[0].act.first_s = 0.02
    asked = []
    for i in range(8):
        asked.append(asyncio.create_task(site.complete(prompt=f"number {i}")))
        await eventually(lambda i=i: site.gateway.engines.lines.length("tiny") + len(site.trips()) >= i)
    await asyncio.gather(*asked)
    assert [body["prompt"] for body in site.decode[0].bodies()] == [f"number {i}" for i in range(8)]


async def test_without_a_limit_nobody_waits(make_site: MakeSite) -> None:
    site = await make_site(prefill=0)
    site.decode[0].act.first_s = 0.2
    asked = [asyncio.create_task(site.complete()) for _ in range(5)]
    await eventually(lambda: site.decode[0].running == 5)
    await asyncio.gather(*asked)
    assert not any(trip.queued_s for trip in site.trips())


async def test_the_wait_in_line_is_bounded_and_told(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, queue_s=0.3)
    limit(site, decode=1)
    site.decode[0].act.first_s = 2.0
    first = asyncio.create_task(site.complete())
    await eventually(lambda: site.decode[0].running)
    began = time.monotonic()

    reply = await site.complete()

    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
    assert int(reply.headers["retry-after"]) > 0
    assert 0.25 < time.monotonic() - began < 1.8
    trip = site.trips()[0]
    assert (trip.outcome, trip.attempts) == ("rejected", 0)
    assert trip.queued_s > 0.29  # clocks of floats
    assert (await first).status_code == 200


async def test_the_line_is_bounded_and_in_the_metrics(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, queue_length=2)
    limit(site, decode=1)
    site.decode[0].act.first_s = 0.4
    asked = [asyncio.create_task(site.complete()) for _ in range(3)]
    await eventually(lambda: site.gateway.engines.lines.length("tiny") == 2)

    assert 'forebay_gateway_queued_requests{deployment="tiny"} 2.0' in (await site.client.get("/metrics")).text
    assert (await site.complete()).status_code == 503

    assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}
    assert "forebay_gateway_queued_requests{" not in (await site.client.get("/metrics")).text
    site.gateway.metrics.observe(site.trips())
    assert 'forebay_gateway_queue_time_seconds_count{deployment="tiny"} 2.0' in (await site.client.get("/metrics")).text


async def test_one_who_leaves_the_line_does_not_hold_up_those_behind(make_site: MakeSite) -> None:
    site = await make_site(prefill=0)
    limit(site, decode=1)
    site.decode[0].act.first_s = 0.3
    first = asyncio.create_task(site.complete())
    await eventually(lambda: site.decode[0].running)
    gone = asyncio.create_task(site.complete(prompt="gone"))
    await eventually(lambda: site.gateway.engines.lines.length("tiny") == 1)
    behind = asyncio.create_task(site.complete(prompt="behind"))
    await eventually(lambda: site.gateway.engines.lines.length("tiny") == 2)

    gone.cancel()

    assert {(await one).status_code for one in (first, behind)} == {200}
    assert "gone" not in [body["prompt"] for body in site.decode[0].bodies()]


async def test_a_retry_does_not_go_to_the_end_of_the_line(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=2)
    limit(site, decode=1)
    site.decode[0].act.status = 500
    reply: httpx.Response = await site.complete()
    assert (reply.status_code, reply.headers["x-forebay-decode"]) == (200, "node/decode1")
    assert site.trips()[0].queued_s == 0
