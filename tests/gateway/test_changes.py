"""Roles and engines that change while requests are on their way."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.domain.routing import Ready
from controlplane.gateway.table import Engine
from tests.gateway.conftest import MakeSite, Site, eventually
from tests.standin_engine import Standin

PREFILL, DECODES = 1, (2, 3)  # ids in the order that conftest makes them


async def chosen_decode(site: Site) -> int:
    """The decode engine of the request that is now at the prefill engine."""
    await eventually(lambda: site.prefill[0].running)
    (chosen,) = [id for id in DECODES if site.gateway.engines.load[id]]
    return chosen


def leave(site: Site, id: int) -> None:
    """As the next table shows an engine that is being released."""
    ready = site.table.served["tiny"].ready
    site.serve_as(ready=replace(ready, decode=tuple(one for one in ready.decode if one != id)))
    del site.table.engines[id]


def turn_to_prefill(site: Site, id: int) -> None:
    ready = site.table.served["tiny"].ready
    decode = tuple(one for one in ready.decode if one != id)
    site.serve_as(ready=Ready(prefill=(*ready.prefill, id), decode=decode))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("change", [leave, turn_to_prefill])
async def test_a_decode_that_leaves_during_the_prefill_is_replaced_and_the_prefill_kept(
    make_site: MakeSite, change: object, stream: bool
) -> None:
    site = await make_site(decode=2)
    site.prefill[0].act.first_s = 0.3
    asked = asyncio.create_task(site.complete(stream=stream))
    chosen = await chosen_decode(site)

    change(site, chosen)  # type: ignore[operator]

    reply = await asked
    other = next(id for id in DECODES if id != chosen)
    assert (reply.status_code, reply.headers["x-forebay-path"]) == (200, "two_step")
    assert reply.headers["x-forebay-decode"] == f"node/decode{other - 2}"
    assert not site.decode[chosen - 2].bodies()
    assert len(site.prefill[0].bodies()) == 1
    trip = await site.recorded()
    assert (trip.attempts, trip.decode) == (1, f"node/decode{other - 2}")
    assert not any(site.gateway.engines.load.values())


async def test_a_decode_that_moved_during_the_prefill_is_asked_where_it_is_now(make_site: MakeSite) -> None:
    site = await make_site(prefill=1, decode=1)
    site.prefill[0].act.first_s = 0.3
    restarted = await Standin("decode0", "another key", fabric=site.decode[0].fabric).start()
    asked = asyncio.create_task(site.complete())
    await eventually(lambda: site.prefill[0].running)

    site.table.engines[2] = engine = Engine.at(2, "node/decode0", restarted.url, restarted.key)  # type: ignore[assignment]
    await site.decode[0].stop()

    assert engine is not None
    assert (await asked).status_code == 200
    assert len(restarted.bodies()) == 1
    assert (await site.recorded()).attempts == 1
    await restarted.stop()


async def test_without_another_decode_the_request_goes_another_way(make_site: MakeSite) -> None:
    site = await make_site(prefill=1, decode=1, aggregated=1)
    site.prefill[0].act.first_s = 0.3
    site.gateway.engines.load[3] += 1  # busy, so that the pair is chosen
    asked = asyncio.create_task(site.complete())
    await eventually(lambda: site.prefill[0].running)

    leave(site, 2)

    reply = await asked
    assert (reply.status_code, reply.headers["x-forebay-path"]) == (200, "aggregated")
    assert not site.decode[0].bodies()
    assert not site.gateway.engines._suspects(site.table), "nobody is to blame"


async def test_a_name_given_to_another_deployment_meanwhile_takes_no_request_along(make_site: MakeSite) -> None:
    """Its engines hold another model, and the key may not open it."""
    site = await make_site(decode=2)
    site.prefill[0].act.first_s = 0.3
    asked = asyncio.create_task(site.complete(model="small"))
    chosen = await chosen_decode(site)

    other = next(id for id in DECODES if id != chosen)
    site.table.served["small"] = replace(site.table.served["tiny"], name="other", ready=Ready(decode=(other,)))
    leave(site, chosen)
    site.serve_as(ready=Ready(prefill=(PREFILL,)))

    assert (await asked).status_code == 503
    assert not site.decode[other - 2].bodies()
