"""Takes pictures of the Scaling pages: 1440 and 380 px, dark and light; empty, furnished, late, and refused.

python -m tests.browser.scalingshots FOLDER [--only NAME,NAME]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.feigned import Fleet
from tests.browser.running import CHROMIUM, CHROMIUM_ARGS, Running, temporary
from tests.browser.shots import Shooter, furnish

NODES = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="take only these, by name, separated by commas")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    site = Running(temporary("scalingshots"))
    site.start(gateway=False)
    password = site.make_admin()
    os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # the browser driver runs a loop in this thread
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
            shoot(Shooter(browser, site, options.folder, password, options.only))
            browser.close()
    finally:
        site.stop()


def shoot(shooter: Shooter) -> None:
    shooter.take("scaling-empty", "/scaling/", settle_s=1.0)
    nodes = furnish(shooter.site, NODES)
    with Fleet(nodes):
        time.sleep(3)
        from tests.browser import furnish as furnishing
        from tests.browser import pressing

        ids = furnishing.assign(nodes)
        time.sleep(14)  # until engines are ready, most of them
        shooter.take("scaling-unseen", "/scaling/")
        decided, plan = pressing.press()
        shooter.take("scaling", "/scaling/")
        shooter.take("scaling-plan", f"/scaling/plans/{plan}/")
        shooter.take("scaling-applied", f"/scaling/plans/{decided}/")
        shooter.take("scaling-superseded", "/scaling/?superseded=1")
        shooter.take("scaling-deployment", f"/deployments/{ids['deployment']}/")
        shooter.take("scaling-refused", "/scaling/", _refused)
        shooter.take("scaling-policy", "/scaling/policy", _wrong)
        pressing.stop_looking()
        shooter.take("scaling-late", "/scaling/")


def _refused(page: Page) -> None:
    page.eval_on_selector("#id_reason", "field => field.required = false")
    page.get_by_role("button", name="Dismiss").click()
    page.wait_for_timeout(800)


def _wrong(page: Page) -> None:
    page.check("[name=auto_apply]")
    page.fill("[name=quiet_hours]", "now and then")
    page.get_by_role("button", name="Save").click()
    page.wait_for_timeout(800)


if __name__ == "__main__":
    main()
