"""Takes pictures of the Scaling pages: 1440 and 380 px, dark and light; empty, furnished, late, and refused.

python -m tests.browser.scalingshots FOLDER [--only NAME,NAME]
"""

from __future__ import annotations

import argparse
import time

from playwright.sync_api import Page

from tests.browser.feigned import Fleet
from tests.browser.pictures import Shooter, program
from tests.browser.shots import furnish

NODES = 7


def shoot(shooter: Shooter, _options: argparse.Namespace) -> None:
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
    program(__doc__, shoot)
