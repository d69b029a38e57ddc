"""The dense map of more than fifty nodes: what its narrow rows leave out is still told."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.running import Running

LONG = "ip-10-24-118-203.eu-west-1.compute.internal"
MAKE = (
    "from bench import _rows; from controlplane.fleet.models import Node; _rows.make(60); "
    f"Node.objects.filter(name='sim-0007').update(name='{LONG}')"
)
BEYOND = """
names => names.map(name => {
  const words = document.createRange();
  words.selectNodeContents(name);
  return [name.textContent, words.getBoundingClientRect().right - name.closest(".node").getBoundingClientRect().right];
}).filter(([, beyond]) => beyond > 0)
"""


def test_a_name_too_long_for_a_dense_row_is_cut_in_its_middle_and_told_whole(
    page: Page, site: Running, password: str
) -> None:
    site.manage("shell", "-v", "0", "-c", MAKE)
    sign_in(page, password)
    expect(page.locator("#map")).to_have_class(re.compile("dense"))
    expect(page.locator("#map .node")).to_have_count(60)
    name = page.get_by_role("link", name=LONG, exact=True)
    expect(name).to_have_text(re.compile(r"^ip-10-.*….*internal$"))
    expect(name).to_have_attribute("title", LONG)
    assert page.locator("#map .name").evaluate_all(BEYOND) == []
