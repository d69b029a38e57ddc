"""What the frame gives to many pages: a filter, links to parts, a word when the server is lost, in a real Chromium."""

from __future__ import annotations

import json
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
ALERTS = """
from django.utils import timezone
from controlplane.alerts.models import Alert
at = timezone.now()
one = dict(rule="node-silent", severity="warning", subject_type="node", since=at, fired_at=at)
for number in range(9):
    Alert.objects.create(**one, state="firing", subject_id=900 + number, subject_name=f"firing-{number}")
for number in range(60):
    Alert.objects.create(**one, state="resolved", resolved_at=at, subject_id=number, subject_name=f"ended-{number}")
"""


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


def test_a_row_that_is_chosen_is_not_hidden_and_the_chosen_are_counted(page: Page, password: str, nodes: None) -> None:
    sign_in(page, password)
    page.goto("/cost/prices/")
    expect(page.get_by_text("0 chosen")).to_be_visible()
    page.get_by_label("gpu-3", exact=True).check()
    expect(page.get_by_text("1 chosen")).to_be_visible()
    page.get_by_label("Filter the rows of this page").fill("gpu-5")
    rows = page.locator("main table tbody tr").filter(visible=True)
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("gpu-3")
    page.get_by_label("All nodes").check()
    expect(page.get_by_text(re.compile(r"^all \d+ chosen$"))).to_be_visible()


def test_a_filter_outlives_acknowledging_and_the_next_page(
    page: Page, site: Running, password: str, nodes: None
) -> None:
    shell(site, ALERTS)
    sign_in(page, password)
    page.goto("/alerts/?filter=ended")
    page.get_by_role("link", name="Older").click()
    expect(page).to_have_url(re.compile(r"/alerts/\?page=2&filter=ended$"))
    page.get_by_label("Filter the rows of this page").fill("firing-1")
    page.get_by_role("button", name=re.compile("Acknowledge .* firing-1$")).click()
    expect(page.get_by_text("It is yours")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/alerts/\?page=2&filter=firing-1$"))
    shell(site, "from controlplane.alerts.models import Alert; Alert.objects.all().delete()")


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
    expect(lost).to_contain_text(re.compile(r"^not renewed since \d\d:\d\d:\d\d UTC, the server does not answer$"))
    page.unroute("**/alerts/**")
    expect(lost).to_be_empty()


@pytest.mark.parametrize(
    ("status", "why"),
    [(500, "the server answers with an error"), (403, "you are no longer allowed to see it"), (404, "no longer there")],
)
def test_a_part_that_is_refused_is_told_with_the_reason(
    page: Page, password: str, nodes: None, status: int, why: str
) -> None:
    sign_in(page, password)
    other = page.context.new_page()  # htmx tells refusals to the console, which fails a test's own page
    other.goto("/alerts/")
    other.route("**/alerts/now*", lambda route: route.fulfill(status=status, body="no"))
    expect(other.locator(".head .light")).to_contain_text(f"UTC, {why}" if status != 404 else why)
    expect(other.get_by_role("heading", name="Nothing fires")).to_be_visible()  # what was there stays
    other.unroute("**/alerts/now*")
    expect(other.locator(".head .light")).to_be_empty()


def test_a_server_that_never_answers_is_told(page: Page, password: str, nodes: None) -> None:
    sign_in(page, password)
    other = page.context.new_page()
    other.goto("/alerts/")
    assert other.evaluate("htmx.config.timeout") == 20_000
    other.evaluate("htmx.config.timeout = 1500")
    other.route("**/alerts/now*", lambda route: None)
    expect(other.locator(".head .light")).to_contain_text("the server does not answer")


def test_a_preview_that_failed_once_is_forgotten_when_the_server_answers(
    page: Page, password: str, nodes: None
) -> None:
    sign_in(page, password)
    page.goto("/models/register")
    page.wait_for_load_state("networkidle")
    page.route("**/models/fit*", lambda route: route.abort())
    page.locator("#id_source").fill("/nowhere")
    lost = page.locator(".head .light")
    expect(lost).to_have_text("the server does not answer")
    expect(lost).to_be_empty()  # the badge of alerts is renewed each 10 s


def test_rows_that_a_filter_hides_do_not_use_up_the_live_figures(
    page: Page, site: Running, password: str, nodes: None
) -> None:
    shell(site, "from bench import _rows; _rows.make(120)")
    last = int(shell(site, "from controlplane.fleet.models import Node; print(Node.objects.get(name='sim-0119').pk)"))
    asked: list[list[int]] = []

    def told(frame: str | bytes) -> None:
        said = json.loads(frame)
        if said.get("type") == "view":
            asked.append(said["detail"])

    page.on("websocket", lambda socket: socket.on("framesent", told))
    sign_in(page, password)
    page.goto("/nodes/")
    expect(page.locator("#list tbody tr").filter(visible=True)).to_have_count(129)
    page.get_by_label("Filter the rows of this page").fill("sim-0119")
    expect(page.locator("#list tbody tr").filter(visible=True)).to_have_count(1)
    for _ in range(50):
        if asked and asked[-1] == [last]:
            break
        page.wait_for_timeout(200)
    assert asked[-1] == [last]


def test_a_filter_for_a_status_follows_the_live_values(page: Page, site: Running, password: str, nodes: None) -> None:
    sign_in(page, password)
    page.goto("/nodes/?filter=gpu-4+silent")
    rows = page.locator("#list tbody tr")
    expect(rows.filter(has_text="gpu-4")).to_be_hidden()
    shell(
        site,
        "from django.utils import timezone; from controlplane.fleet.models import Node; "
        "Node.objects.filter(name='gpu-4').update(last_seen=timezone.now() - timezone.timedelta(minutes=5))",
    )
    expect(rows.filter(has_text="gpu-4")).to_be_visible()
