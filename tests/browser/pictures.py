"""What the programs that take pictures of the pages share: a site and a browser, one size and theme after the other."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.running import CHROMIUM, CHROMIUM_ARGS, Running, temporary

PAST = """
async () => {
  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  if (document.documentElement.scrollHeight < 1.2 * innerHeight) return;
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight * 0.8) {
    scrollTo(0, y); await rest(250);
  }
  scrollTo(0, 0); await rest(500);
}
"""
WIDTHS = {"1440": (1440, 1000), "380": (380, 800)}


def program(said: str | None, shoot: Callable[[Shooter, argparse.Namespace], None], **more: int | str) -> None:
    """`said`: what --help says; `more`: the program's own options with their defaults. A gateway would try the engines,
    and these are feigned, so there is none."""
    parser = argparse.ArgumentParser(description=said, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="take only these, by name, separated by commas")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    site = Running(temporary("pictures"))
    try:
        site.start(gateway=False)
        password = site.make_admin()
        os.environ.update({k: v for k, v in site.environ.items() if k.startswith(("FOREBAY_", "DJANGO_"))})
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # the browser driver runs a loop in this thread
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
            shoot(Shooter(browser, site, options.folder, password, options.only), options)
            browser.close()
    finally:
        site.stop()


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
                    elif full:
                        page.evaluate(PAST)  # charts are drawn once they come into sight
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
