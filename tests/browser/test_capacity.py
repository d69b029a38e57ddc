"""The Capacity page with a week of a fleet's requests, from the empty page on: import, forecast, policy, undo."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import lone
from tests.browser.conftest import picture, sign_in
from tests.browser.running import Running

site = lone.site

MOST_MS = 300  # a what-if answer
# Moves the slider and waits until the answer is painted.
ASK = """async () => {
  const risk = document.getElementById("risk"), what = document.getElementById("what");
  const before = what.textContent, began = performance.now();
  risk.value = String(Number(risk.value) - 0.8);
  risk.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return { ms: performance.now() - began, changed: what.textContent !== before };
}"""
INK = """(canvas) => { const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let inked = 0;
  for (let at = 3; at < data.length; at += 4) inked += data[at] > 0;
  return inked / (data.length / 4); }"""


def test_a_week_is_imported_forecast_weighed_and_acted_upon(
    page: Page, site: Running, password: str, tmp_path: Path
) -> None:
    file = tmp_path / "week.csv.gz"
    shell = ("shell", "-v", "0", "-c")
    site.manage(*shell, f"from tests.browser import week; week.trace({str(file)!r}, 10)")
    sign_in(page, password)
    page.goto("/capacity/")
    page.get_by_role("link", name="Import a history").click()
    page.set_input_files("[name=trace]", file)
    expect(page.locator("#look")).to_contain_text("requests for 10 models")
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text(re.compile(r"Imported [\d,]+ requests for 10 models"))).to_be_visible()

    site.manage(*shell, "from tests.browser import week; week.forecast()")
    page.reload()
    expect(page.locator("#k-hold")).to_have_text(re.compile(r"\d+ slots?"))
    expect(page.locator("#fan .plot svg.main-svg").first).to_be_visible()
    expect(page.locator("#held tr")).to_have_count(6)
    expect(page.locator("#spent-note")).to_contain_text("windows of ten minutes")
    expect(page.locator("#raster-note")).to_contain_text("Kept alive")
    page.locator("#raster-before").click()
    expect(page.locator("#raster-from")).to_contain_text("active on this day")
    page.locator("#raster summary").click()
    expect(page.locator("#raster-table tbody tr").first).to_be_visible()
    assert page.locator("#raster canvas").evaluate(INK) > 0.02

    asked = page.evaluate(ASK)
    assert asked["changed"] and asked["ms"] < MOST_MS
    print(f"what-if answered in {asked['ms']:.0f} ms")
    picture(page, "capacity")

    page.get_by_role("link", name="Change…").click()
    page.fill("[name=floors]", "Mon-Sun 0:00-24:00 40")
    expect(page.locator("#effect")).to_contain_text("floor of the schedule, Mon-Sun 0:00-24:00 40")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#k-hold")).to_have_text("40 slots")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#k-hold")).not_to_have_text("40 slots")
    expect(page.locator("#k-hold")).to_have_text(re.compile(r"\d+ slots?"))
    page.set_viewport_size({"width": 380, "height": 800})
    expect(page.locator("#fan .plot svg.main-svg").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
