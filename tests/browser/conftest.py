"""One running site and one Chromium for all tests here. Without a Chromium or an engine, the tests say so and skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.running import CHROMIUM, CHROMIUM_ARGS, PYTHON, ROOT, Running, free_port
from tests.e2e.stack import make_tiny_model

HERE = "tests/browser/"
ELSEWHERE = "Asia/Kolkata"  # the zone of the browser, which pages must not show
ENGINE = ROOT / ".venv-engine" / "bin"
expect.set_options(timeout=20_000)  # a busy machine of two cores is slow, not wrong


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(HERE):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("forebay") / "home")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def password(site: Running) -> str:
    return site.make_admin()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, site: Running) -> Iterator[Page]:
    """A page that fails its test on any script error, violated content policy or complaint of htmx, but that the server
    does not answer."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, base_url=site.web, timezone_id=ELSEWHERE)
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if _is_wrong(said.text) else None)
    yield page
    context.close()
    assert wrong == []


def _is_wrong(said: str) -> bool:
    is_lost = said.startswith(("htmx:sendError", "htmx:afterRequest"))  # a refusal by the server is a responseError
    return "Content Security Policy" in said or (said.startswith("htmx:") and not is_lost)


def sign_in(page: Page, password: str, name: str = "admin") -> None:
    page.goto("/accounts/login/")
    page.fill("[name=login]", name)
    page.fill("[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url("**/")


def picture(page: Page, name: str) -> None:
    """Kept when somebody asks for pictures: FOREBAY_PICTURES=folder."""
    if folder := os.environ.get("FOREBAY_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model that a CPU engine starts in seconds: random weights, real code."""
    if not (ENGINE / "vllm").exists():
        pytest.skip("no CPU engine: make it with `make run` or `python3 -m controlplane.management.bootstrap engine`")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_tiny_model(folder, ENGINE / "python")
    return folder


class Agent:
    """The real agent of this host, with CPU slots and real engines, joined by the command that the page shows."""

    def __init__(self, site: Running) -> None:
        self.site, self.home = site, site.home / "agent"
        first = free_port() % 20000 + 20000
        self.environ = {
            "FOREBAY_AGENT_HOME": str(self.home),
            "FOREBAY_DEVICES": "cpu",
            "FOREBAY_CPU_SLOTS": "2",
            "FOREBAY_VLLM": str(ENGINE / "vllm"),
            "FOREBAY_ENGINE_PORTS": f"{first}-{first + 9}",
            "FOREBAY_SIDE_PORTS": f"{first + 10}-{first + 19}",
        }

    def run(self, command: str) -> None:
        """`command` as a person would paste it."""
        words = command.split()
        assert words[:3] == ["python", "-m", "workers"]
        self.site.spawn("agent", PYTHON, *words[1:], **self.environ)

    def stop(self) -> None:
        self.site.end("agent")
        self.site.spawn("stop", PYTHON, "-m", "workers", "stop", **self.environ)
        self.site.processes.pop("stop").wait(120)


@pytest.fixture
def agent(site: Running) -> Iterator[Agent]:
    made = Agent(site)
    yield made
    made.stop()
