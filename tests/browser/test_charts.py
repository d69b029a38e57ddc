"""Charts: one range and one cursor for a page; events with words; a table and a file beside each chart."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import lone
from tests.browser.conftest import picture, sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running
from tests.browser.test_live import ISSUE

site = lone.site

FURNISH = """
from tests.browser import furnish
from controlplane.fleet import services
from controlplane.fleet.models import Node
furnish.remember(hours=0.9)
services.label(Node.objects.get(name='sim-a').pk, labels={'rack': 'b'}, actor=furnish.ACTOR)
"""


@pytest.fixture(scope="module")
def fleet(site: Running, password: str) -> Iterator[Fleet]:
    """A node of four GPUs and one of sixteen, with an hour behind them."""
    nodes = [FeignedNode(site.web, name, gpus=gpus) for name, gpus in (("sim-a", 4), ("sim-many", 16))]
    tokens = site.manage("shell", "-v", "0", "-c", f"{ISSUE}; {ISSUE.split('; ')[-1]}").split()
    for node, token in zip(nodes, tokens, strict=True):
        node.join(token)
    with Fleet(nodes) as running:
        site.wait_for(f"{site.web}/static/css/charts.css")
        site.manage("shell", "-v", "0", "-c", FURNISH)
        yield running


def chart(page: Page, title: str) -> object:
    return page.locator(f'.chart[data-title="{title}"]')


def test_the_charts_of_a_page_share_a_range_a_cursor_and_their_events(
    page: Page, fleet: Fleet, password: str, tmp_path: Path
) -> None:
    sign_in(page, password)
    page.goto(f"/nodes/{fleet.nodes[0].id}/")
    lines, power = chart(page, "GPU utilization"), chart(page, "Power")
    expect(lines).to_have_attribute("data-state", "good")
    expect(lines.locator(".legend li")).to_have_text([re.compile(rf"GPU {n}\s*\d+%") for n in range(4)])

    # The range is in the address, for all charts; Back takes it back.
    page.get_by_role("button", name="15 min").click()
    expect(page).to_have_url(re.compile(r"\?range=15m"))
    plot = lines.locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 90, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"\?from=\d+&to=\d+"))
    link = page.url
    page.go_back()
    expect(page.get_by_role("button", name="15 min")).to_have_attribute("aria-pressed", "true")
    page.goto(link)
    expect(page.locator("[data-zoomed]")).to_be_visible()
    page.locator("[data-zoomed]").click()
    expect(page.get_by_role("button", name="1 h", exact=True)).to_have_attribute("aria-pressed", "true")

    # The keyboard reads values; the other charts show the same moment.
    expect(power).to_have_attribute("data-state", "good")
    plot.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(lines.locator(".cross")).to_be_visible()
    expect(power.locator(".cross")).to_be_visible()
    expect(page.locator("[data-read]")).to_contain_text("GPU 3")
    page.keyboard.press("Escape")
    expect(lines.locator(".cross")).to_be_hidden()

    # What happened is listed in words, and shown where it happened.
    page.locator(".marks summary").click()
    event = page.locator(".marks li button", has_text="label")
    event.focus()
    expect(page.locator(".cross b", has_text="label").first).to_be_visible()
    picture(page, "charts")

    # Each chart has its figures as a table and as a file.
    lines.locator(".twin summary").click()
    expect(lines.locator(".twin tbody td").first).to_have_text(re.compile(r"^(\d+%|–)$"))  # noqa: RUF001
    now = datetime.now(UTC)
    said = f"{now.year} {lines.locator('.twin tbody th').first.inner_text()} +0000"
    assert abs(datetime.strptime(said, "%Y %d %b, %H:%M:%S %z") - now) < timedelta(hours=1)
    hours = lines.evaluate("f => f.querySelector('.js-plotly-plot').layout.xaxis.range.map(x => x.slice(0, 13))")
    assert hours[1] in {f"{now - timedelta(minutes=m):%Y-%m-%dT%H}" for m in (0, 5)}, "axes are in UTC"
    with page.expect_download() as saved:
        lines.get_by_role("button", name="Download CSV").click()
    saved.value.save_as(tmp_path / "saved.csv")
    rows = list(csv.reader((tmp_path / "saved.csv").read_text().splitlines()))
    assert rows[0] == ["time", *(f"GPU {n} (%)" for n in range(4))]
    assert len(rows) > 300


def test_over_a_dozen_lines_are_one_band_and_an_empty_chart_says_why(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    page.goto(f"/nodes/{fleet.nodes[1].id}/")
    chart(page, "GPU utilization").scroll_into_view_if_needed()
    expect(chart(page, "GPU utilization").locator(".legend")).to_contain_text("p10 to p90 of 16")
    engine = chart(page, "KV cache in use")
    engine.scroll_into_view_if_needed()
    expect(engine).to_have_attribute("data-state", "empty")
    expect(engine.locator(".none")).to_contain_text("No engine ran here")
    page.route("**/api/v1/samples*", lambda route: route.fulfill(status=503, json={"detail": "The database is away."}))
    page.get_by_role("button", name="6 h").click()
    expect(engine.locator("[data-said]")).to_contain_text("The database is away. Try again")
    page.unroute("**/api/v1/samples*")
    engine.get_by_role("button", name="Try again").click()
    expect(engine).to_have_attribute("data-state", "empty")


def test_the_panel_leads_from_the_fleet_to_a_gpu_and_back_by_keys(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    page.locator("#map .part").first.focus()
    page.keyboard.press("n")
    panel, place = page.locator("#panel"), page.locator("#panel [data-way]")
    expect(panel.locator("h2")).to_have_text("sim-a")
    expect(page).to_have_url(re.compile(r"sel=n\d+"))
    expect(panel.locator("[data-below] li")).to_have_count(4)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(panel.locator("h2")).to_have_text("sim-a / GPU 1")
    expect(place).to_have_text(re.compile(r"Fleet\s*sim-a\s*GPU 1"))
    expect(panel.locator("[data-sparks] figcaption").first).to_have_text(re.compile(r"Utilization, last hour: \d+%"))
    page.keyboard.press("ArrowLeft")
    expect(panel.locator("[data-below] button").nth(1)).to_be_focused()  # where one came from
    page.keyboard.press("Escape")
    expect(panel.locator("h2")).to_have_text("Fleet")
    expect(panel.locator("[data-below] li").first).to_contain_text("sim-a")
    page.reload()
    expect(panel.locator("h2")).to_have_text("Fleet")
    panel.get_by_role("button", name="Close").press("Escape")
    expect(panel).to_be_hidden()


LATE = """
addEventListener("DOMContentLoaded", () => { document.querySelector("main")?.style.setProperty("display", "none"); });
"""
FITTING = """
() => [...document.querySelectorAll(".js-plotly-plot")].filter((box) => box.getBoundingClientRect().top < innerHeight)
  .every((box) => Math.abs(box.layout.width - box.parentElement.clientWidth) < 40)
"""
SQUEEZED = """
() => [...document.querySelectorAll(".js-plotly-plot")].map((box) => box.layout.width).filter((wide) => wide < 80)
"""


@pytest.mark.parametrize("path", ["/nodes/{}/", "/?sel=n{}"])
def test_charts_that_have_no_place_yet_are_drawn_once_they_have_one(
    page: Page, fleet: Fleet, password: str, path: str
) -> None:
    """However long the page is not laid out; and hidden in between, or in a window of another size."""
    sign_in(page, password)
    page.add_init_script(LATE)
    with page.expect_response("**/api/v1/samples*"):
        page.goto(path.format(fleet.nodes[0].id))
    page.wait_for_timeout(1500)
    drawn = page.locator(".js-plotly-plot").first
    for _ in range(2):
        assert page.evaluate(SQUEEZED) == [], "drawn into no place"
        page.evaluate("document.querySelector('main').style.removeProperty('display')")
        expect(drawn).to_be_visible()
        page.wait_for_function(FITTING)
        page.evaluate("document.querySelector('main').style.setProperty('display', 'none')")
        page.wait_for_timeout(1500)
    page.set_viewport_size({"width": 700, "height": 900})
    page.evaluate("document.querySelector('main').style.removeProperty('display')")
    drawn.scroll_into_view_if_needed()
    page.wait_for_function(FITTING)
    assert page.evaluate(SQUEEZED) == []
