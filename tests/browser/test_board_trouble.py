"""The assignment board when things go wrong: others are faster, steps fail, nodes fall silent, engines keep ending."""

from __future__ import annotations

import re
from types import SimpleNamespace

from playwright.sync_api import Browser, Page, expect

from tests.browser import boarding
from tests.browser.boarding import apply, opened, piece, shell
from tests.browser.conftest import picture, sign_in
from tests.browser.running import Running
from workers.contract import Phase

site, laid, board = boarding.site, boarding.laid, boarding.board


def test_of_two_operators_one_wins_and_the_other_plans_again(
    board: Page, laid: SimpleNamespace, chromium: Browser, site: Running, password: str
) -> None:
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, base_url=site.web)
    other = context.new_page()
    sign_in(other, password)
    piece(board, laid, "sim-a/p1").focus()
    board.keyboard.press("p")
    expect(board.get_by_role("button", name="Apply 1 move")).to_be_visible()
    opened(other, laid, f"?move={laid.parts['sim-b/p0']}:{laid.chat}:prefill")
    apply(other, "I saw it first")
    expect(other.locator(".progress")).to_have_attribute("data-state", "done", timeout=20_000)
    apply(board, "TTFT is climbing")
    dialog = board.locator("#conflict")
    expect(dialog).to_contain_text("Somebody was faster")
    expect(dialog).to_contain_text("I saw it first")
    picture(board, "board-conflict")
    dialog.get_by_role("link", name="Re-plan").click()
    expect(dialog).to_be_hidden()
    expect(board.get_by_label("Reason")).to_have_value("TTFT is climbing")
    expect(board.locator("#plan")).to_contain_text("2 → 3")
    board.get_by_role("button", name="Apply 1 move").click()
    expect(board.locator(".progress")).to_have_attribute("data-state", "done", timeout=20_000)
    context.close()


def test_the_loser_may_discard(board: Page, laid: SimpleNamespace, site: Running) -> None:
    piece(board, laid, "sim-a/p1").focus()
    board.keyboard.press("p")
    expect(board.get_by_role("button", name="Apply 1 move")).to_be_visible()
    shell(
        site,
        "from controlplane.fleet import services; from controlplane.audit.services import Actor; "
        f"services.assign({laid.parts['sim-a/p2']}, deployment_id={laid.chat}, role='prefill', "
        "actor=Actor.system('x'))",
    )
    apply(board)
    board.locator("#conflict").get_by_role("link", name="Discard").click()
    expect(board.locator("#conflict")).to_be_hidden()
    expect(board.locator(".ghost")).to_have_count(0)
    expect(board).to_have_url(re.compile("/board/$"))


def test_what_would_stop_serving_is_typed_out(board: Page, laid: SimpleNamespace) -> None:
    query = "&".join(f"move={laid.parts[name]}:idle" for name in ("sim-a/p1", "sim-a/p2", "sim-b/p0"))
    opened(board, laid, f"?{query}")
    expect(board.locator("#plan")).to_contain_text("Nothing would answer requests for chat any more")
    apply(board, "making room")
    expect(board.locator("#plan .errorlist")).to_contain_text("This is not chat")
    expect(board.get_by_label("Reason")).to_have_value("making room")
    board.get_by_label("Go on in spite of it").check()
    board.get_by_label("Type chat to confirm").fill("chat")
    board.get_by_role("button", name="Apply 3 moves").click()
    expect(board.locator(".progress")).to_have_attribute("data-state", "done", timeout=30_000)
    board.get_by_role("link", name="Undo…").click()
    expect(board.locator(".plan")).to_contain_text("Start an engine")
    apply(board, "it was too much")
    expect(board.locator(".progress")).to_have_attribute("data-state", "done", timeout=60_000)


def test_a_silent_node_greys_and_stays_on_the_board(board: Page, laid: SimpleNamespace) -> None:
    laid.fleet.quiet.add("sim-b")
    try:
        expect(piece(board, laid, "sim-b/p0")).to_have_class(re.compile("silent"), timeout=20_000)
        expect(piece(board, laid, "sim-b/p0").locator(".state")).to_contain_text("silent for")
        expect(piece(board, laid, "sim-b/p1")).to_have_class(re.compile("silent"))
        expect(piece(board, laid, "sim-a/p0")).not_to_have_class(re.compile("silent"))
    finally:
        laid.fleet.quiet.clear()
    expect(piece(board, laid, "sim-b/p0")).not_to_have_class(re.compile("silent"), timeout=20_000)


def test_a_failed_step_stops_the_change_and_rolls_back(board: Page, laid: SimpleNamespace) -> None:
    broken = laid.parts["sim-b/p1"]
    laid.nodes[1].phases[broken] = Phase.EXITED
    try:
        opened(board, laid, f"?move={broken}:{laid.chat}:prefill")
        apply(board)
        progress = board.locator(".progress")
        expect(progress).to_have_attribute("data-state", "stopped", timeout=40_000)
        expect(progress).to_contain_text("Stopped; the fleet serves on")
        expect(progress).to_contain_text("failed 4 times in a row")
        picture(board, "board-stopped")
        progress.get_by_label("Reason").fill("its memory is gone")
        progress.get_by_role("button", name="Roll back").click()
        expect(board.locator(".progress")).to_have_attribute("data-state", "rolled_back", timeout=40_000)
    finally:
        laid.nodes[1].phases.clear()


def test_an_engine_that_keeps_ending_is_seen_until_it_serves_again(board: Page, laid: SimpleNamespace) -> None:
    broken, page = laid.parts["sim-b/p0"], board
    page.goto("/")
    node = page.locator("#map .node", has=page.get_by_role("link", name="sim-b", exact=True))
    expect(node.locator(".meta")).to_contain_text("ready", timeout=20_000)
    expect(node).not_to_contain_text("crashing")
    laid.nodes[1].phases[broken] = Phase.EXITED
    try:
        expect(node).to_contain_text("crashing", timeout=20_000)  # by itself
        page.goto(f"/partitions/{broken}/")
        expect(page.locator("main")).to_contain_text("CUDA error: out of memory", timeout=20_000)
        page.goto("/")
        expect(node).to_contain_text("crashing", timeout=20_000)
    finally:
        laid.nodes[1].phases.clear()
    expect(node).not_to_contain_text("crashing", timeout=20_000)
