"""The API's own page in a real Chromium, under the site's content security policy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from playwright.sync_api import Locator, Page, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from controlplane.fleet.models import Node
from tests.factories import make_node, make_user

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def node(transactional_db: None) -> Node:
    return make_node("alpha", gpus=1)


@pytest.fixture
def session(node: Node) -> str:
    client = Client()
    client.force_login(make_user("operator"))
    return client.cookies["sessionid"].value


@pytest.fixture
def page(live_server: LiveServer, session: str) -> Iterator[Page]:
    """Logged in as an operator, at the docs, with what the browser complained of in `page.complaints`."""
    assert CHROMIUM, "this test needs Chromium (on Debian: apt install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: _note_elsewhere(page, request.url, live_server.url))
        page.goto(f"{live_server.url}/api/v1/docs")
        expect(page.locator("#operations-nodes-nodes_list")).to_be_visible(timeout=30_000)
        yield page
        browser.close()


def _note_elsewhere(page: Page, url: str, home: str) -> None:
    if not url.startswith((home, "data:", "blob:")):
        page.complaints.append(f"asked {url}")


def test_the_page_lists_the_operations_without_a_complaint(page: Page, tmp_path: Path) -> None:
    seen: set[str] = set()
    for _ in range(40):  # of so many operations only those near the window are in the page
        seen |= set(page.locator(".opblock").evaluate_all("blocks => blocks.map((one) => one.id)"))
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(50)
    assert len(seen) > 100
    page.screenshot(path=tmp_path / "docs.png")
    assert page.complaints == []


def test_a_read_and_a_write_can_be_tried(page: Page, node: Node) -> None:
    answer = _try(page, "nodes_list")
    expect(answer).to_contain_text('"name": "alpha"')
    page.locator("#operations-nodes-nodes_list .opblock-summary-control").click()
    answer = _try(page, "nodes_cordon", id=str(node.pk))
    expect(answer).to_contain_text('"schedulable": false')
    assert page.complaints == []


def _try(page: Page, operation: str, **parameters: str) -> Locator:
    """Fill in and execute; the answer as the page shows it, after a look at its status."""
    block = page.locator(f"#operations-nodes-{operation}")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    for name, value in parameters.items():
        block.locator(f'tr[data-param-name="{name}"] input').fill(value)
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table")
    expect(answer.locator("tbody td.response-col_status")).to_contain_text("200")
    return answer
