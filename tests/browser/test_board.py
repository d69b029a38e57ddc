"""The assignment board in a real Chromium: mouse, finger and keys edit one draft; conflict, undo, a phone, a form."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect

from tests.browser.conftest import picture, sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running
from workers.contract import Phase

SETUP = """
import json
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Node
from tests.browser.furnish import folder
actor = Actor.system("test")
model = services.register_model(name="llama-8b", source=folder("llama-8b", 15.0), actor=actor)
more = {"engine_args": ["--max-model-len", "8192"], "slo_ttft_ms": 500, "slo_itl_ms": 40, "actor": actor}
chat = services.create_deployment(name="chat", model_id=model.pk, **more)
code = services.create_deployment(name="code", model_id=model.pk, **more)
rows = {}
for node, roles in ((Node.objects.get(name="sim-a"), ("prefill", "decode", "decode", "")),
                    (Node.objects.get(name="sim-b"), ("decode", "", "", ""))):
    for row, role in zip(services.split_node(node.pk, preset="4x1", actor=actor), roles):
        rows[str(row)] = row.pk
        if role:
            services.assign(row.pk, deployment_id=chat.pk, role=role, actor=actor, reason="first layout")
print(json.dumps({"chat": chat.pk, "code": code.pk, "parts": rows}))
"""
RESET = """
import time
from controlplane.audit.services import Actor
from controlplane.fleet import errors, services
from controlplane.fleet.models import Change, Partition
actor = Actor.system("test")
for _ in range(100):
    open_ones = Change.objects.filter(state__in=["running", "stopped"])
    if not open_ones:
        break
    for change in open_ones:
        try:
            services.roll_back_change(change.pk, actor=actor, reason="next test")
        except errors.Refused:  # it is being rolled back already
            time.sleep(0.2)
wanted = {"sim-a/p0": "prefill", "sim-a/p1": "decode", "sim-a/p2": "decode", "sim-b/p0": "decode"}
for row in Partition.objects.select_related("node"):
    if str(row) in wanted:
        services.assign(row.pk, deployment_id=CHAT, role=wanted[str(row)], actor=actor)
    elif row.deployment_id:
        services.release(row.pk, actor=actor)
"""
ISSUE = (
    "from controlplane.fleet import services; from controlplane.audit.services import Actor; "
    "print(services.issue_join_token(actor=Actor.system('test'))[1])"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Without a gateway: it would try the engines, and these are feigned."""
    made = Running(tmp_path_factory.mktemp("forebay") / "home")
    try:
        made.start(gateway=False)
        yield made
    finally:
        made.stop()


def shell(site: Running, code: str) -> str:
    return site.manage("shell", "-v", "0", "-c", code).strip()


@pytest.fixture(scope="module")
def laid(site: Running, password: str) -> Iterator[SimpleNamespace]:
    """Two simulated nodes of four GPUs: `chat` on one prefill and three decode partitions, four idle ones, `code` on
    none."""
    nodes = [FeignedNode(site.web, name, gpus=4, starts_s=3.0) for name in ("sim-a", "sim-b")]
    for node in nodes:
        node.join(shell(site, ISSUE))
    with Fleet(nodes) as fleet:
        time.sleep(2.5)  # the first reports bring the GPUs
        ids = json.loads(shell(site, SETUP).splitlines()[-1])
        yield SimpleNamespace(fleet=fleet, nodes=nodes, site=site, **ids)


@pytest.fixture
def board(page: Page, laid: SimpleNamespace, password: str) -> Iterator[Page]:
    """The page, with everything serving as it was laid out."""
    shell(laid.site, RESET.replace("CHAT", str(laid.chat)))
    sign_in(page, password)
    opened(page, laid)
    yield page


def opened(page: Page, laid: SimpleNamespace, query: str = "") -> None:
    page.goto(f"/board/{query}")
    for lane, count in (("prefill", 1), ("decode", 3)):
        expect(pieces(page, f"{laid.chat}:{lane}")).to_have_count(count, timeout=30_000)
    expect(page.locator(".piece:not(.ghost) .state").filter(has_text="ready")).to_have_count(4, timeout=30_000)


def lane(page: Page, key: str) -> Locator:
    return page.locator(f"[data-lane='{key}']")


def pieces(page: Page, key: str) -> Locator:
    return lane(page, key).locator(".piece:not(.ghost)")


def ghosts(page: Page, key: str) -> Locator:
    return lane(page, key).locator(".piece.ghost")


def piece(page: Page, laid: SimpleNamespace, name: str) -> Locator:
    return page.locator(f"[data-piece='{laid.parts[name]}']:not(.ghost)")


def box_of(locator: Locator) -> dict[str, float]:
    """The board is drawn anew whenever the fleet changes: ask until it is there."""
    for _ in range(50):
        try:
            locator.scroll_into_view_if_needed(timeout=1000)
        except Error:
            continue
        if found := locator.bounding_box():
            return found
    raise AssertionError(f"never still: {locator}")


def drag(page: Page, piece: Locator, to: Locator) -> None:
    start = box_of(piece)
    page.mouse.move(start["x"] + 30, start["y"] + 12)
    page.mouse.down()
    page.mouse.move(start["x"] + 50, start["y"] + 30)
    end = box_of(to)
    page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2, steps=6)
    page.mouse.up()


def apply(page: Page, reason: str = "TTFT is climbing") -> None:
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=re.compile("Apply")).click()


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
