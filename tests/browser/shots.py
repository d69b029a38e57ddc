"""Takes pictures of every page: 1440 and 380 px, dark and light, empty, normal and broken.

    python -m tests.browser.shots FOLDER [--only NAME,NAME] [--nodes N]

The fleet in them is simulated, and says so on the pages.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import CHROMIUM, CHROMIUM_ARGS, Running, temporary
from workers.contract import Phase

WIDTHS = {"1440": (1440, 1000), "380": (380, 800)}
EMPTY = {
    "fleet-empty": "/",
    "board-empty": "/board/",
    "changes-empty": "/changes/",
    "models-empty": "/models/",
    "nodes-empty": "/nodes/",
    "keys-empty": "/settings/keys",
    "alerts-empty": "/alerts/",
    "targets-empty": "/alerts/targets/",
    "cost-empty": "/cost/",
    "teams-empty": "/cost/teams/",
    "prices-empty": "/cost/prices/",
}


class Shooter:
    def __init__(self, browser: Browser, site: Running, folder: Path, password: str, only: str) -> None:
        self.browser, self.site, self.folder, self.only = browser, site, folder, only
        page = browser.new_page()
        page.goto(f"{site.web}/")
        page.screenshot(path=folder / "login-1440-dark.png")
        page.fill("[name=login]", "admin")
        page.fill("[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(f"{site.web}/")
        self.state = page.context.storage_state()
        page.close()

    def take(self, name: str, path: str, prepare: Any = None, *, full: bool = True, settle_s: float = 1.8) -> None:
        if self.only and name not in self.only.split(","):
            return
        for width, (w, h) in WIDTHS.items():
            for theme in ("dark", "light"):
                with self.page(w, h, theme) as page:
                    page.goto(f"{self.site.web}{path}")
                    page.wait_for_timeout(settle_s * 1000)
                    if prepare:
                        prepare(page)
                    page.screenshot(path=self.folder / f"{name}-{width}-{theme}.png", full_page=full)
                    self._complain(page, name, width)

    @contextmanager
    def page(self, width: int, height: int, theme: str) -> Iterator[Page]:
        size = {"width": width, "height": height}
        context = self.browser.new_context(storage_state=self.state, viewport=size, color_scheme=theme)
        page = context.new_page()
        page.on(
            "console", lambda said: print(f"  {page.url} {said.type}: {said.text}") if said.type == "error" else None
        )
        page.on("pageerror", lambda error: print(f"  {page.url} script error: {error}"))
        yield page
        context.close()

    def _complain(self, page: Page, name: str, width: str) -> None:
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            print(f"  {name} at {width} px is {wide} px too wide")


def furnish(site: Running, nodes: int) -> list[FeignedNode]:
    """Models, deployments and joined nodes by the real services, in this process."""
    from tests.browser.furnish import furnish as make  # needs Django, which needs the environment

    return make(site.web, nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="take only these, by name, separated by commas")
    parser.add_argument("--nodes", type=int, default=7)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    site = Running(temporary("shots"))
    site.start(gateway=False)  # it would try the engines, and these are feigned
    password = site.make_admin()
    os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # the browser driver runs a loop in this thread
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
            shoot(Shooter(browser, site, options.folder, password, options.only), options.nodes)
            browser.close()
    finally:
        site.stop()


def shoot(shooter: Shooter, count: int) -> None:
    for name, path in EMPTY.items():
        shooter.take(name, path, settle_s=1.0)
    nodes = furnish(shooter.site, count)
    with Fleet(nodes) as fleet:
        time.sleep(3)
        from tests.browser.furnish import alarm, alert_scenes, assign, change, change_scenes, remember, scenes
        from tests.browser.spending import cost_scenes, spend

        ids = assign(nodes)
        remember(every_s=300)
        time.sleep(8)
        nodes[3].phases[ids["crashing"]] = Phase.EXITED
        nodes[4].phases[ids["draining"]] = Phase.DRAINING
        time.sleep(float(os.environ.get("SHOTS_HISTORY_S", "15")))
        fleet.quiet.add(nodes[-1].name)
        time.sleep(8)
        spend()
        for name, path, prepare in [*scenes(ids), *alert_scenes(alarm()), *cost_scenes()]:
            shooter.take(name, path, prepare)
        nodes[4].phases[ids["idle"]] = Phase.EXITED
        change(ids)
        time.sleep(6)
        for name, path, prepare in change_scenes(ids):
            shooter.take(name, path, prepare)
        drained(shooter, ids)
        fleet.quiet |= {node.name for node in nodes[-3:]}
        time.sleep(14)
        shooter.take("brake", "/brake/")
        shooter.take("fleet-braked", "/")
        shooter.site.end("web")
        broken(shooter, ids)
    if fleet.errors:
        print(f"  {len(fleet.errors)} reports failed, the last: {fleet.errors[-1]}", file=sys.stderr)


def drained(shooter: Shooter, ids: dict[str, int]) -> None:
    """While it lasts, and called off again."""
    from controlplane.audit.services import Actor
    from controlplane.fleet import services

    actor = Actor.system("shots")
    services.drain(ids["node"], actor=actor, reason="new fan", deadline_s=900)
    shooter.take("node-draining", f"/nodes/{ids['node']}/")
    shooter.take("drain-deadline", f"/nodes/{ids['node']}/drain")
    services.cancel_drain(ids["node"], actor=actor)


def broken(shooter: Shooter, ids: dict[str, int]) -> None:
    """The socket and the server are lost while the page is open."""
    shooter.site.start_web()

    for width, (w, h) in WIDTHS.items():
        for theme in ("dark", "light"):
            name = f"fleet-lost-{width}-{theme}"
            if shooter.only and "fleet-lost" not in shooter.only.split(","):
                continue
            with shooter.page(w, h, theme) as page:
                page.goto(f"{shooter.site.web}/?sel=p{ids['ready']}")
                page.wait_for_timeout(2500)
                shooter.site.end("web")
                page.wait_for_timeout(9000)
                page.screenshot(path=shooter.folder / f"{name}.png", full_page=True)
            shooter.site.start_web()


if __name__ == "__main__":
    main()
