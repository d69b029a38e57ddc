"""Takes pictures of the Capacity pages: 1440 and 380 px, dark and light; empty, begun, with an hour, with a week of
trace; and of the batch that a profile gives to engines.

python -m tests.browser.capacityshots FOLDER [--only NAME,NAME] [--models N]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.running import CHROMIUM, CHROMIUM_ARGS, Running, temporary
from tests.browser.shots import Shooter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="take only these, by name, separated by commas")
    parser.add_argument("--models", type=int, default=40)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    site = Running(temporary("capacityshots"))
    site.start(gateway=False)
    password = site.make_admin()
    os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # the browser driver runs a loop in this thread
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
            shoot(Shooter(browser, site, options.folder, password, options.only), options.models)
            browser.close()
    finally:
        site.stop()


def shoot(shooter: Shooter, models: int) -> None:
    from tests.browser import week

    shooter.take("capacity-empty", "/capacity/")
    shooter.take("capacity-policy-empty", "/capacity/policy")
    shooter.take("capacity-import", "/capacity/import", _choose)
    week.begin()
    shooter.take("capacity-begins", "/capacity/")
    week.forget()
    shooter.take("speed-batch", f"/deployments/{week.measured()}/speed", _once)
    week.hour()
    shooter.take("capacity-hour", "/capacity/")
    week.pool()
    began = time.monotonic()
    week.remember(models)
    print(f"  a week of {models} models: {time.monotonic() - began:.1f} s")
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
    main()
