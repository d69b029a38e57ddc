"""The main job in a real browser, with the real agent and real engines: sign in, add this host, register a model,
split, assign one prefill and one decode, watch them turn ready, chat."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Agent, picture, sign_in

READY_MS = 300_000  # two engines start in half a minute on two idle cores; other load may multiply that


def test_from_an_empty_fleet_to_a_chat(page: Page, password: str, agent: Agent, tiny_model: Path) -> None:
    sign_in(page, password)
    expect(page.get_by_text("No node has joined yet")).to_be_visible()
    _join(page, agent)
    _register(page, tiny_model)
    _serve(page)
    _split(page)
    for slot, role in ((0, "prefill"), (1, "decode")):
        _assign(page, slot, role)
    _watch_it_turn_ready(page)
    _chat(page)


def _join(page: Page, agent: Agent) -> None:
    page.get_by_role("link", name="Add a node").click()
    page.get_by_label("Node name").fill("here")
    page.get_by_role("button", name="Issue token").click()
    agent.run(page.locator("#command").inner_text())
    expect(page.get_by_text("here has joined.")).to_be_visible(timeout=60_000)


def _register(page: Page, model: Path) -> None:
    page.goto("/models/")
    page.get_by_role("link", name="Register a model").click()
    page.get_by_label("Folder or repository").fill(str(model))
    page.get_by_label("Tokens per request").fill("512")
    fit = page.locator("#fit")
    expect(fit.get_by_text("LlamaForCausalLM")).to_be_visible()
    expect(fit.locator(".chip", has_text="fits")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("tiny")
    picture(page, "road-register")
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("status").get_by_text("Registered tiny.")).to_be_visible()


def _serve(page: Page) -> None:
    page.get_by_role("link", name="Create deployment").click()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("Created tiny.")).to_be_visible()
    expect(page.get_by_text("No partition is assigned")).to_be_visible()


def _split(page: Page) -> None:
    page.goto("/nodes/")
    page.get_by_role("link", name="here", exact=True).click()
    page.get_by_role("link", name="Split the node").click()
    page.get_by_role("button", name="2x1").click()
    expect(page.get_by_text("Split here into 2 partitions.")).to_be_visible()


def _assign(page: Page, slot: int, role: str) -> None:
    row = page.locator("#partitions tr", has=page.get_by_text(f"p{slot}", exact=True))
    row.get_by_role("link", name="Assign").click()
    page.locator(f"input[name=role][value={role}]").check()
    plan = page.locator("#plan")
    expect(plan.get_by_text("Start: an engine is started.")).to_be_visible()
    expect(plan.locator("dd", has_text=role)).to_be_visible()
    page.get_by_label("Reason").fill("browser test")
    picture(page, f"road-assign-{role}")
    plan.get_by_role("button", name="Apply").click()
    expect(page.get_by_text(f"here/p{slot} shall be {role} of tiny.")).to_be_visible()


def _watch_it_turn_ready(page: Page) -> None:
    """The page is not touched: the socket alone turns it."""
    page.goto("/")
    frames = page.locator(".part.is-ready")
    expect(page.locator(".part.is-starting").first).to_be_visible(timeout=60_000)
    expect(frames).to_have_count(2, timeout=READY_MS)
    expect(page.locator(".part .state")).to_have_count(0, timeout=READY_MS)  # confirmed, too
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    frames.first.click()
    panel = page.locator("#panel")
    expect(panel.get_by_text("here / p0")).to_be_visible()
    expect(panel.get_by_text("ready, confirmed as generation")).to_be_visible()
    expect(panel.get_by_text("1 decode")).to_be_visible()
    picture(page, "road-fleet")


def _chat(page: Page) -> None:
    page.locator("#panel").get_by_role("link", name="tiny", exact=True).click()
    expect(page.locator("#replicas .chip.ok")).to_have_count(2)
    page.locator("[name=max_tokens]").fill("8")
    page.get_by_label("Message").fill("What is held ready in front of a turbine?")
    page.get_by_role("button", name="Send").click()
    turn = page.locator(".turn.assistant")
    served = turn.locator(".served")
    expect(served.get_by_text("KV transfer")).to_be_visible(timeout=60_000)
    for word in ("here/p0", "here/p1", "TTFT", "ITL", "prefill", "tokens"):
        expect(served).to_contain_text(word)
    assert turn.locator(".said").inner_text().strip()
    expect(page.locator("#log")).to_contain_text("Application startup complete", timeout=30_000)
    picture(page, "road-chat")
