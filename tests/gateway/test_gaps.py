"""A moment without an engine: requests wait for the next one rather than fail."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from controlplane.domain.routing import Ready
from controlplane.gateway.table import Engine
from tests.gateway.conftest import MakeSite, Site, eventually


def show(site: Site, ready: Ready) -> None:
    """As a table that was just read."""
    site.serve_as(ready=ready)
    site.gateway.engines.sweep(site.table)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_waits_for_the_engine_that_comes_back(make_site: MakeSite, stream: bool) -> None:
    site = await make_site(prefill=0, wait_s=10.0)
    before = site.table.served["tiny"].ready
    show(site, before)
    show(site, Ready())
    asked = asyncio.create_task(site.complete(stream=stream))
    await asyncio.sleep(0.3)
    assert not asked.done()

    show(site, before)

    assert (await asked).status_code == 200
    assert (await site.recorded()).attempts == 1


async def test_a_request_that_met_a_dead_engine_is_served_by_the_one_started_anew(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=2, wait_s=10.0)
    ready, engine = site.table.served["tiny"].ready, site.table.engines[1]
    show(site, Ready(decode=(1,)))
    await site.decode[0].stop()
    asked = asyncio.create_task(site.complete())
    await eventually(lambda: site.gateway.engines.is_suspect(engine))

    del site.table.engines[1]
    show(site, Ready())
    await asyncio.sleep(0.3)
    anew = Engine.at(1, "node/decode0", site.decode[1].url, site.decode[1].key)
    assert anew is not None
    site.table.engines[1] = anew
    show(site, replace(ready, decode=(1,)))

    assert (await asked).status_code == 200
    trip = await site.recorded()
    assert (trip.attempts, trip.outcome, trip.error) == (2, "ok", "")


async def test_the_wait_is_bounded(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, wait_s=0.5)
    show(site, site.table.served["tiny"].ready)
    show(site, Ready())
    began = time.monotonic()
    reply = await site.complete()
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_not_ready")
    assert 0.4 < time.monotonic() - began < 10


async def test_a_deployment_that_had_no_engine_lately_is_told_at_once(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, decode=0, wait_s=30.0)
    began = time.monotonic()
    assert (await site.complete()).status_code == 503
    assert time.monotonic() - began < 10


async def test_a_client_that_hangs_up_while_it_waits_is_let_go(make_site: MakeSite) -> None:
    site = await make_site(prefill=0, wait_s=30.0)
    show(site, site.table.served["tiny"].ready)
    show(site, Ready())
    asked = asyncio.create_task(site.complete())
    await asyncio.sleep(0.3)
    asked.cancel()
    assert (await site.recorded()).outcome == "cancelled"


@pytest.mark.parametrize("alike", [True, False])
async def test_with_no_decode_left_a_prefill_engine_like_it_answers(make_site: MakeSite, alike: bool) -> None:
    site = await make_site()
    site.serve_as(ready=replace(site.table.served["tiny"].ready, alike=alike))
    await site.decode[0].stop()
    reply = await site.complete()
    assert reply.status_code == (200 if alike else 503)
    if alike:
        assert (reply.headers["x-forebay-path"], reply.headers["x-forebay-decode"]) == ("direct", "node/prefill0")
        assert not site.prefill[0].bodies()[-1].get("kv_transfer_params")
