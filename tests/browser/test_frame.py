"""What the frame gives to many pages: a filter, links to parts, a word when the server is lost, in a real Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser import lone
from tests.browser.boarding import shell
from tests.browser.conftest import sign_in
from tests.browser.running import Running

site = lone.site
MAKE = """
from django.utils import timezone
from tests.factories import make_gpus, make_node, make_partition
for number in range(9):
    node = make_node(f"gpu-{number}", labels={"rack": "ab"[number % 2]}, last_seen=timezone.now() + timezone.timedelta(days=1))
    make_partition(node, gpus=make_gpus(node, 2))
"""  # noqa: E501


@pytest.fixture(scope="module")
def nodes(site: Running) -> None:
    shell(site, MAKE)


def test_rows_are_filtered_by_words_and_the_address_keeps_them(page: Page, password: str, nodes: None) -> None:
    sign_in(page, password)
    page.goto("/nodes/")
    rows, field = page.locator("#list tbody tr"), page.get_by_label("Filter the rows of this page")
    expect(rows).to_have_count(9)
    page.keyboard.press("/")
    expect(field).to_be_focused()
    page.keyboard.type("rack=a gpu-4")
    expect(rows.filter(visible=True)).to_have_count(1)
    expect(page.locator(".head-filter [role=status]")).to_have_text("1 of 9")
    expect(page).to_have_url(re.compile(r"\?filter=rack%3Da\+gpu-4$"))
    page.evaluate("htmx.trigger(document.body, 'fleet-moved')")
    page.wait_for_load_state("networkidle")
    expect(rows.filter(visible=True)).to_have_count(1)  # the rows are the server's new ones
    page.reload()
    expect(rows.filter(visible=True)).to_have_count(1)
    field.press("Escape")
    expect(rows.filter(visible=True)).to_have_count(9)
    expect(page).to_have_url(re.compile("/nodes/$"))


def test_few_rows_have_no_filter(page: Page, password: str, nodes: None) -> None:
    sign_in(page, password)
    page.goto("/cost/teams/")
    expect(page.get_by_role("heading", name="Teams", exact=True)).to_be_visible()
    expect(page.get_by_label("Filter the rows of this page")).to_be_hidden()


def test_a_link_on_a_long_page_leads_to_its_part(page: Page, password: str, nodes: None) -> None:
    sign_in(page, password)
    page.set_viewport_size({"width": 380, "height": 700})
    page.goto("/nodes/")
    page.get_by_role("link", name="gpu-3", exact=True).click()
    page.get_by_role("navigation", name="On this page").get_by_role("link", name="Maintenance").click()
    expect(page.get_by_role("link", name="Drain…")).to_be_in_viewport()
    expect(page.get_by_role("navigation", name="On this page")).to_be_in_viewport()  # it stays in sight


def test_a_page_whose_parts_are_not_renewed_says_since_when(page: Page, password: str, nodes: None) -> None:
    sign_in(page, password)
    page.goto("/alerts/")
    expect(page.get_by_role("heading", name="Nothing fires")).to_be_visible()
    page.route("**/alerts/**", lambda route: route.abort())
    lost = page.locator(".head .light")
    expect(lost).to_contain_text("the server does not answer")
    page.unroute("**/alerts/**")
    expect(lost).to_have_count(0)
