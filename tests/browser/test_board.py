"""The assignment board in a real Chromium: mouse, finger and keys edit one draft; undo, a phone, a form."""

from __future__ import annotations

import re
from types import SimpleNamespace

from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import boarding
from tests.browser.boarding import RESET, apply, box_of, drag, ghosts, lane, opened, piece, pieces, shell
from tests.browser.conftest import picture, sign_in
from tests.browser.running import Running

site, laid, board = boarding.site, boarding.laid, boarding.board


def test_a_mouse_drags_a_piece_to_a_lane_and_the_draft_is_a_link(
    board: Page, laid: SimpleNamespace, chromium: Browser, site: Running
) -> None:
    prefill = f"{laid.chat}:prefill"
    drag(board, piece(board, laid, "sim-a/p1"), lane(board, prefill))
    expect(ghosts(board, prefill)).to_have_count(1)
    expect(board.locator("#plan .from-to")).to_contain_text("decode")
    expect(board.locator("#plan")).to_contain_text("1 → 2")
    expect(board).to_have_url(re.compile(rf"\?move={laid.parts['sim-a/p1']}:{prefill}$"))
    expect(pieces(board, f"{laid.chat}:decode")).to_have_count(3)  # nothing has moved
    picture(board, "board-dragged")
    board.reload()
    expect(ghosts(board, prefill)).to_have_count(1)
    ghosts(board, prefill).get_by_role("button").click()
    expect(ghosts(board, prefill)).to_have_count(0)
    expect(board).to_have_url(re.compile("/board/$"))
    expect(board.locator("#plan")).to_contain_text("No move planned")


def test_applied_its_progress_is_followed_and_one_click_takes_it_back(board: Page, laid: SimpleNamespace) -> None:
    drag(board, piece(board, laid, "sim-a/p1"), lane(board, f"{laid.chat}:prefill"))
    apply(board)
    expect(board).to_have_url(re.compile(r"/board/\?change=\d+"))
    progress = board.locator(".progress")
    expect(progress).to_have_attribute("data-state", "done", timeout=20_000)
    expect(pieces(board, f"{laid.chat}:prefill")).to_have_count(2)
    picture(board, "board-done")
    board.get_by_role("button", name="Undo").click()
    expect(board.locator(".progress").get_by_role("link", name=re.compile("Undo"))).to_be_visible()
    expect(board.locator(".progress")).to_have_attribute("data-state", "done", timeout=20_000)
    expect(pieces(board, f"{laid.chat}:decode")).to_have_count(3)
    board.goto("/changes/")
    expect(board.locator("tbody tr").first).to_contain_text("Undo")
    expect(board.locator("tbody tr").nth(1)).to_contain_text("TTFT is climbing")


def test_several_are_dragged_at_once(board: Page, laid: SimpleNamespace) -> None:
    for name in ("sim-b/p1", "sim-b/p2"):
        piece(board, laid, name).click()
    expect(board.locator("#selection")).to_contain_text("2 partitions")
    drag(board, piece(board, laid, "sim-b/p1"), lane(board, f"{laid.code}:aggregated"))
    expect(ghosts(board, f"{laid.code}:aggregated")).to_have_count(2)
    expect(board.locator("#plan")).to_contain_text("2 moves")
    expect(board.locator("#selection")).to_be_hidden()


def test_escape_drops_nothing(board: Page, laid: SimpleNamespace) -> None:
    start = box_of(piece(board, laid, "sim-a/p1"))
    board.mouse.move(start["x"] + 30, start["y"] + 12)
    board.mouse.down()
    board.mouse.move(start["x"] + 80, start["y"] + 60, steps=3)
    expect(board.locator(".carried")).to_be_visible()
    board.keyboard.press("Escape")
    expect(board.locator(".carried")).to_have_count(0)
    board.mouse.up()
    expect(board).to_have_url(re.compile("/board/$"))


def test_keys_move_select_choose_and_take_back(board: Page, laid: SimpleNamespace) -> None:
    board.keyboard.press("g")
    board.keyboard.press("b")
    opened(board, laid)
    piece(board, laid, "sim-a/p1").focus()
    board.keyboard.press("p")
    expect(ghosts(board, f"{laid.chat}:prefill")).to_have_count(1)
    expect(board.locator("#said")).to_contain_text("sim-a/p1 to prefill of chat")
    expect(piece(board, laid, "sim-a/p1")).to_be_focused()
    board.keyboard.press("x")
    expect(ghosts(board, f"{laid.chat}:prefill")).to_have_count(0)
    board.keyboard.press("Space")
    board.keyboard.press("ArrowDown")
    board.keyboard.press("Space")
    board.keyboard.press("u")
    expect(ghosts(board, "idle")).to_have_count(2)
    board.keyboard.press("Control+Enter")
    expect(board.get_by_label("Reason")).to_be_focused()
    piece(board, laid, "sim-b/p3").focus()
    board.keyboard.press("m")
    board.keyboard.type("code dec")
    expect(board.locator("#chooser [role=option]")).to_have_count(1)
    board.keyboard.press("Enter")
    expect(ghosts(board, f"{laid.code}:decode")).to_have_count(1)
    board.keyboard.press("?")
    for words in ("choose a lane", "select several", "unassigned", "take it out of the draft"):
        expect(board.locator("#help")).to_contain_text(words)


def test_an_idle_piece_asks_which_deployment(board: Page, laid: SimpleNamespace) -> None:
    piece(board, laid, "sim-b/p1").focus()
    board.keyboard.press("d")
    expect(board.locator("#chooser [role=option]")).to_have_text([re.compile("decode of chat"), re.compile("of code")])
    board.keyboard.press("Enter")
    expect(ghosts(board, f"{laid.chat}:decode")).to_have_count(1)


def test_a_phone_moves_gpus_in_four_taps(
    laid: SimpleNamespace, chromium: Browser, site: Running, password: str
) -> None:
    shell(site, RESET.replace("CHAT", str(laid.chat)))
    context = chromium.new_context(
        viewport={"width": 380, "height": 800}, base_url=site.web, has_touch=True, is_mobile=True
    )
    phone = context.new_page()
    phone.set_default_timeout(20_000)
    sign_in(phone, password)
    opened(phone, laid)
    taps = []

    def tap(target: Locator) -> None:
        box = target.bounding_box()
        assert box["height"] >= 30, "too small for a thumb"
        taps.append(target)
        target.tap()

    tap(phone.get_by_role("link", name="Move GPUs"))
    tap(phone.locator(f".way[href*='deployment={laid.chat}&source=decode&target=prefill']"))
    expect(phone.locator(".stepper b")).to_have_text("1")
    tap(phone.get_by_role("link", name="2 GPUs"))
    expect(phone.locator(".stepper b")).to_have_text("2")
    expect(phone.locator(".plan")).to_contain_text("1 → 3")
    button = phone.get_by_role("button", name="Apply 2 moves")
    expect(button).to_be_in_viewport()  # no scrolling for it
    picture(phone, "phone-count")
    tap(button)
    expect(phone.locator(".progress")).to_have_attribute("data-state", "done", timeout=20_000)
    assert len(taps) == 4
    for path in ("/board/", "/board/plan", "/board/shift", "/changes/", phone.url):
        phone.goto(path)
        phone.wait_for_timeout(600)
        over = phone.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{path} is {over} px too wide"
    context.close()


def test_a_finger_drags_after_it_has_rested_and_scrolls_before(
    laid: SimpleNamespace, chromium: Browser, site: Running, password: str
) -> None:
    shell(site, RESET.replace("CHAT", str(laid.chat)))
    context = chromium.new_context(viewport={"width": 380, "height": 800}, base_url=site.web, has_touch=True)
    phone = context.new_page()
    sign_in(phone, password)
    opened(phone, laid)
    cdp = context.new_cdp_session(phone)

    def touch(kind: str, x: float, y: float) -> None:
        points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def swipe(rest_ms: int) -> None:
        start = box_of(piece(phone, laid, "sim-a/p1"))
        end = box_of(lane(phone, f"{laid.chat}:prefill"))
        x, y = start["x"] + 40, start["y"] + 15
        touch("touchStart", x, y)
        phone.wait_for_timeout(rest_ms)
        for share in (0.2, 0.5, 0.8, 1.0):
            touch("touchMove", x, y + (end["y"] + 20 - y) * share)
            phone.wait_for_timeout(40)
        touch("touchEnd", 0, 0)

    swipe(rest_ms=0)
    phone.wait_for_timeout(300)
    expect(phone.locator(".ghost")).to_have_count(0)
    swipe(rest_ms=500)
    expect(ghosts(phone, f"{laid.chat}:prefill")).to_have_count(1)
    context.close()


def test_without_a_script_the_form_leads_to_the_same_plan(
    laid: SimpleNamespace, chromium: Browser, site: Running, password: str
) -> None:
    shell(site, RESET.replace("CHAT", str(laid.chat)))
    context = chromium.new_context(java_script_enabled=False, base_url=site.web)
    page = context.new_page()
    sign_in(page, password)
    page.goto("/board/")
    page.get_by_role("link", name="form", exact=True).click()
    page.locator(f"input[name=partition][value='{laid.parts['sim-a/p2']}']").check()
    page.get_by_role("radio", name="prefill").check()
    page.get_by_role("button", name="Add to the draft").click()
    expect(page.locator(".plan")).to_contain_text("1 → 2")
    page.get_by_label("Reason").fill("no script here")
    page.get_by_role("button", name="Apply 1 move").click()
    expect(page).to_have_url(re.compile(r"/changes/\d+/"))
    expect(page.get_by_role("definition").filter(has_text="no script here")).to_be_visible()
    context.close()


def test_a_typed_command_opens_its_draft(board: Page, laid: SimpleNamespace) -> None:
    board.keyboard.press("Control+k")
    board.keyboard.type("flip sim-a/p1 to prefill")
    expect(board.locator("#palette [role=option]").first).to_contain_text("Flip sim-a/p1 to prefill")
    board.keyboard.press("Enter")
    expect(ghosts(board, f"{laid.chat}:prefill")).to_have_count(1)
    expect(pieces(board, f"{laid.chat}:decode")).to_have_count(3)
    board.keyboard.press("Control+k")
    board.keyboard.type("move 2 gpus of chat from decode to prefill")
    expect(board.locator("#palette [role=option]").first).to_contain_text("Move 2 GPUs of chat")
    board.keyboard.press("Enter")
    expect(board.locator(".stepper b")).to_have_text("2")


def test_the_fleet_map_leads_to_the_board_with_the_draft(board: Page, laid: SimpleNamespace) -> None:
    board.goto(f"/?sel=p{laid.parts['sim-a/p1']}")
    board.get_by_role("link", name="Flip to prefill").click()
    expect(ghosts(board, f"{laid.chat}:prefill")).to_have_count(1)
    board.goto(f"/?sel=p{laid.parts['sim-b/p1']}")
    board.get_by_role("link", name="Move…").click()
    expect(board.locator("#chooser")).to_contain_text("sim-b/p1")
