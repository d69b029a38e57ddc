"""The form of a deployment: what has no part in the chosen mode is not shown, and nothing is lost by it."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from tests.browser import lone
from tests.browser.boarding import shell
from tests.browser.conftest import picture, sign_in
from tests.browser.running import Running

site = lone.site
MAKE = """
from tests.factories import make_deployment
print(make_deployment('chat', keep_alive_s=240, decode_args=['--max-num-seqs', '32'], decode_max_requests=8).pk)
"""
READ = """
import json
from controlplane.fleet.models import Deployment
row = Deployment.objects.get(pk={})
print(json.dumps([row.mode, row.keep_alive_s, row.decode_args, row.decode_max_requests, row.priority]))
"""


def test_fields_of_other_modes_are_not_shown_and_keep_their_values(page: Page, site: Running, password: str) -> None:
    made = int(shell(site, MAKE))
    sign_in(page, password)
    page.goto(f"/deployments/{made}/edit")
    shape, overflow = page.get_by_label("Woken in the pool as"), page.get_by_label("Overflow into the pool")
    alive, decode = page.get_by_label("Keep-alive, seconds"), page.get_by_label("Decode only")
    kept, most = page.locator("[data-kept]"), page.get_by_label("Requests per aggregated engine")
    expect(shape).to_be_hidden()
    expect(alive).to_be_hidden()
    expect(kept).to_have_text("Kept, though it has no part in this choice: Keep-alive, seconds.")
    overflow.check()
    expect(alive).to_be_visible()
    expect(kept).to_be_hidden()

    page.get_by_label("Mode", exact=True).select_option("pooled")
    expect(overflow).to_be_hidden()
    expect(shape).to_be_visible()
    expect(decode).to_be_hidden()
    expect(most).to_be_visible()
    said = "Decode only, Requests per decode engine, Overflow into the pool"
    expect(kept).to_have_text(f"Kept, though it has no part in this choice: {said}.")
    picture(page, "served")
    shape.select_option("pair")
    expect(decode).to_be_visible()
    expect(most).to_be_hidden()
    shape.select_option("aggregated")

    # What is refused stays in sight, whatever is chosen.
    page.eval_on_selector("[name=decode_max_requests]", "field => { field.value = '0'; }")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Requests per decode engine")).to_be_visible()
    expect(decode).to_be_hidden()
    page.get_by_label("Requests per decode engine").fill("8")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**/deployments/{made}/")
    assert json.loads(shell(site, READ.format(made))) == ["pooled", 240, ["--max-num-seqs", "32"], 8, 0]
