"""Logs as people read them: they go on by themselves, are searched, chosen by level, paused, linked and taken away."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import picture, sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running

SETUP = """
from controlplane.audit.services import Actor
from controlplane.fleet import services
print(services.issue_join_token(actor=Actor.system("test"))[1])
"""
ASSIGN = """
from controlplane.audit.services import Actor
from controlplane.fleet import services
from tests.factories import make_deployment
actor = Actor.system("test")
part = services.split_node({node}, groups=[[0]], actor=actor)[0]
services.assign(part.pk, deployment_id=make_deployment("chat").pk, role="decode", actor=actor)
"""


@pytest.fixture(scope="module")
def node(site: Running) -> Iterator[FeignedNode]:
    made = FeignedNode(site.web, "sim-a", gpus=1)
    made.join(site.manage("shell", "-v", "0", "-c", SETUP).strip())
    with Fleet([made]) as fleet:
        while not made.seq:
            fleet._ended.wait(0.1)
        site.manage("shell", "-v", "0", "-c", ASSIGN.format(node=made.id))
        yield made


def test_a_log_is_followed_searched_paused_linked_and_taken_away(page: Page, node: FeignedNode, password: str) -> None:
    sign_in(page, password)
    page.keyboard.press("g")
    page.keyboard.press("o")
    log, state = page.locator("#log"), page.locator("#log-state")
    expect(page.get_by_role("heading", name="sim-a/p0")).to_be_visible()
    expect(log.locator(".ln").first).to_contain_text("feigned engine of partition")
    expect(state).to_have_text("live")
    seen = log.locator(".ln").count()
    expect(log.locator(".ln").nth(seen + 2)).to_be_attached()  # it goes on
    picture(page, "logs")

    page.get_by_label("Least level").select_option("e")
    expect(log.locator(".ln:visible").first).to_contain_text("ERROR")
    expect(log.locator(".ln:visible", has_text="Traceback").first).to_be_visible()
    expect(log.locator(".ln:visible", has_text="INFO")).to_have_count(0)
    page.get_by_label("Least level").select_option("d")
    page.get_by_label("Find in the log").fill("KV cache")
    expect(log.locator("mark").first).to_have_text("KV cache")
    page.keyboard.press("Enter")
    expect(page.locator("[data-log-count]")).to_have_text(re.compile(r"1 of \d+ hits"))
    page.get_by_label("Only hits").check()
    expect(log.locator(".ln:visible").first).to_contain_text("KV cache")
    expect(page).to_have_url(re.compile("find=KV"))
    picture(page, "logs-search")

    log.locator(".ln:visible").first.click()
    linked = log.locator(".ln.at").inner_text()
    page.reload()  # as a colleague who was given the address
    expect(log.locator(".ln.at")).to_have_text(linked)
    expect(state).to_have_text("paused")
    log.focus()
    page.keyboard.press("Space")
    expect(state).to_have_text("live")

    page.get_by_label("Find in the log").fill("")
    page.get_by_label("Only hits").uncheck()
    page.get_by_role("button", name="Previous engine").click()
    expect(log).to_have_text(re.compile("feigned engine ended: out of memory"))
    page.get_by_role("button", name="Previous engine").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("sim-a-p0-")
    assert "step 0" in download.value.path().read_text()

    page.get_by_role("link", name=re.compile("gateway")).click()
    expect(log).to_contain_text("the gateway listens")
    page.set_viewport_size({"width": 380, "height": 800})
    picture(page, "logs-380")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto(f"/nodes/{node.id}/?log=agent#logs")
    expect(log).to_contain_text("feigned agent")
    picture(page, "logs-node-380")


def test_without_the_broker_the_page_says_so(page: Page, node: FeignedNode, site: Running, password: str) -> None:
    sign_in(page, password)
    page.goto("/logs/")
    expect(page.locator("#log .ln").first).to_be_visible()
    site.valkey.stop()
    expect(page.locator("#log-state")).to_contain_text("which does not answer")
    expect(page.locator("#log .ln").first).to_be_visible()  # what came stays
    page.reload()
    expect(page.locator(".log-list")).to_contain_text("The broker does not answer")
    picture(page, "logs-no-broker")
