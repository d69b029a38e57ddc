"""Takes pictures of the Capacity pages: 1440 and 380 px, dark and light; empty, begun, with an hour, with a week of
trace; and of the batch that a profile gives to engines.

python -m tests.browser.capacityshots FOLDER [--only NAME,NAME] [--models N]
"""

from __future__ import annotations

import argparse
import time

from playwright.sync_api import Page

from tests.browser.pictures import Shooter, program


def shoot(shooter: Shooter, options: argparse.Namespace) -> None:
    from tests.browser import week

    shooter.take("capacity-empty", "/capacity/")
    shooter.take("capacity-policy-empty", "/capacity/policy")
    shooter.take("capacity-import", "/capacity/import", _choose)
    week.begin()
    shooter.take("capacity-begins", "/capacity/")
    week.forget()
    speed = f"/deployments/{week.measured()}/speed"
    shooter.take("speed-batch", speed, _once)
    week.asked()
    shooter.take("speed-size", speed, _sized)
    week.hour()
    shooter.take("capacity-hour", "/capacity/")
    week.pool()
    began = time.monotonic()
    week.remember(options.models)
    print(f"  a week of {options.models} models: {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    week.compare()
    print(f"  methods compared on it: {time.monotonic() - began:.1f} s")
    shooter.take("capacity", "/capacity/", settle_s=2.5)
    shooter.take("capacity-broken", "/capacity/", _cut_off)
    shooter.take("capacity-policy", "/capacity/policy", _try_out)


def _choose(page: Page) -> None:
    log = b"t_s,model,duration_s\n10,chat,2\n4000,code,soon\n"
    page.set_input_files("[name=trace]", {"name": "log.csv", "mimeType": "text/csv", "buffer": log})
    page.wait_for_timeout(1200)


def _once(page: Page) -> None:
    page.click("#apply-do")
    page.wait_for_timeout(500)


def _sized(page: Page) -> None:
    page.get_by_role("button", name="Find sizes").click()
    page.wait_for_selector("#sized:not([hidden])", timeout=60_000)
    page.wait_for_timeout(500)


def _cut_off(page: Page) -> None:
    page.route("**/api/v1/capacity**", lambda route: route.abort())
    page.reload()
    page.wait_for_timeout(1500)


def _try_out(page: Page) -> None:
    page.fill("[name=most_cold]", "0.2")
    page.fill("[name=floors]", "Mon-Fri 9:00-18:00 12\nSat,Sun 10:00-14:00 4")
    page.fill("[name=gpu_hour_price]", "2.5")
    page.fill("[name=cold_price]", "0.4")
    page.wait_for_timeout(1500)


if __name__ == "__main__":
    program(__doc__, shoot, models=40)
