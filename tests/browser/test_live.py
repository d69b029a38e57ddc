"""What the live pages promise: every value ages, a silent node stays, a lost server is told, a gap is mended."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running


@pytest.fixture(scope="module")
def fleet(site: Running, password: str) -> Iterator[Fleet]:
    """Two simulated nodes of four GPUs that report through the real uplink."""
    nodes = [FeignedNode(site.web, name, gpus=4) for name in ("sim-a", "sim-b")]
    for node in nodes:
        node.join(site.manage("shell", "-v", "0", "-c", ISSUE).strip())
    with Fleet(nodes) as running:
        yield running


ISSUE = (
    "from controlplane.fleet import services; from controlplane.audit.services import Actor; "
    "print(services.issue_join_token(actor=Actor.system('test'))[1])"
)


def fleets(site: Running, call: str) -> None:
    """A service's call about the node sim-a, made in another process."""
    site.manage(
        "shell",
        "-v",
        "0",
        "-c",
        "from controlplane.fleet import services; from controlplane.fleet.models import Node; "
        "from controlplane.audit.services import Actor; "
        f"actor = Actor.system('test'); node = Node.objects.get(name='sim-a'); services.{call}",
    )


def row(page: Page, name: str) -> object:
    return page.locator("#map .node", has=page.get_by_role("link", name=name, exact=True))


def test_ages_tick_and_a_silent_node_greys_and_stays(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    silent = row(page, "sim-b")
    expect(silent.locator(".cell")).to_have_count(4)
    expect(silent.locator(".meta")).to_contain_text("4 GPUs · ready · simulated")
    fleet.quiet.add("sim-b")
    try:
        expect(silent).to_have_class(re.compile("silent"))
        expect(silent.locator(".meta")).to_contain_text("silent for")
        expect(silent.locator(".cell").first).to_have_text("0%")  # the last value, not a blank
        expect(page.locator("#k-nodes-sub")).to_have_text("1 silent")
        expect(row(page, "sim-a")).not_to_have_class(re.compile("silent"))
    finally:
        fleet.quiet.clear()
    expect(silent).not_to_have_class(re.compile("silent"))


def test_unknown_is_a_dash_and_never_zero(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    page.get_by_role("button", name="KV cache").click()
    expect(row(page, "sim-a").locator(".cell.unknown")).to_have_count(4)
    expect(row(page, "sim-a").locator(".cell").first).to_have_text("–")  # noqa: RUF001
    expect(page).to_have_url(re.compile(r"\?fill=kv"))
    page.reload()
    expect(page.get_by_role("button", name="KV cache")).to_have_attribute("aria-pressed", "true")


def test_grouping_and_filtering_are_kept_in_the_address(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    expect(page.locator("#map .node")).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("node:sim-a")
    expect(page.locator("#map .node")).to_have_count(1)
    expect(page.locator("#shown")).to_have_text("1 of 2 nodes")
    page.locator("#group").select_option("kind")
    expect(page.locator("#map .group h2")).to_contain_text("Simulated H100 80GB")
    assert "filter=node%3Asim-a" in page.url
    assert "group=kind" in page.url


def test_the_keyboard_reaches_everything(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    expect(page.locator("#map .part").first).to_be_visible()
    page.locator("#map .part[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2")).to_have_text("sim-b / GPU 1")
    expect(page.locator("#map .part[tabindex='0']")).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.keyboard.type("node sim-a")
    expect(page.get_by_role("option", name="sim-a", exact=False).first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile("/nodes/$"))


def test_a_map_drawn_anew_leaves_the_keyboard_where_it_is(
    page: Page, fleet: Fleet, password: str, site: Running
) -> None:
    sign_in(page, password)
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    place = row(page, "sim-a").locator(".part").nth(2)
    place.focus()
    page.keyboard.press("Enter")
    before = place.element_handle()
    for by, said in ((None, "cordoned"), ("kind", "ready")):
        page.evaluate("by => { if (by) { group.value = by; group.dispatchEvent(new Event('change')); } }", by)
        fleets(site, f"{'cordon' if said == 'cordoned' else 'uncordon'}(node.pk, actor=actor)")
        expect(row(page, "sim-a").locator(".meta")).to_contain_text(said)
        assert not before.evaluate("element => element.isConnected")
        expect(place).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2")).to_have_text("sim-a / GPU 3")


def test_a_node_that_changes_leaves_the_other_rows_alone(
    page: Page, fleet: Fleet, password: str, site: Running
) -> None:
    """Else a click that begins while the fleet is in flux would be lost."""
    sign_in(page, password)
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    kept = row(page, "sim-b").element_handle()
    for verb, said in (("cordon", "cordoned"), ("uncordon", "ready")):
        fleets(site, f"{verb}(node.pk, actor=actor)")
        expect(row(page, "sim-a").locator(".meta")).to_contain_text(said)
    assert kept.evaluate("element => element.isConnected")
    with page.expect_response("**/api/v1/live"):
        page.evaluate("import('/static/js/live.js').then((live) => live.snapshot())")
    page.wait_for_timeout(200)
    assert kept.evaluate("element => element.isConnected")


def test_the_panels_links_keep_the_focus_while_its_figures_change(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    row(page, "sim-a").locator(".part").first.click()
    link = page.locator("#panel [data-actions] a").last
    link.focus()
    page.wait_for_timeout(3500)  # some frames
    expect(link).to_be_focused()
    page.locator("#panel [data-close]").press("Enter")
    expect(page.locator("#panel")).to_be_hidden()
    expect(row(page, "sim-a").locator(".part").first).to_be_focused()


def test_a_list_that_the_server_renders_again_keeps_the_focus(
    page: Page, fleet: Fleet, password: str, site: Running
) -> None:
    sign_in(page, password)
    page.goto("/nodes/")
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    link = page.get_by_role("link", name="sim-b")
    link.focus()
    before = link.element_handle()
    with page.expect_response("**/nodes/"):
        fleets(site, "cordon(node.pk, actor=actor)")
    try:
        expect(page.locator("tr", has_text="sim-a")).to_contain_text("cordoned")
        assert not before.evaluate("element => element.isConnected")
        expect(link).to_be_focused()
    finally:
        fleets(site, "uncordon(node.pk, actor=actor)")


def test_the_theme_is_a_choice_that_lasts(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    page.goto("/settings/")
    page.get_by_role("button", name="Light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_changes_elsewhere_appear_without_a_reload(page: Page, fleet: Fleet, password: str, site: Running) -> None:
    sign_in(page, password)
    page.goto("/nodes/")
    page.get_by_role("link", name="sim-b").click()
    expect(page.get_by_text("Not split yet")).to_be_visible()
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    site.manage(
        "shell",
        "-v",
        "0",
        "-c",
        (
            "from controlplane.fleet import services; from controlplane.fleet.models import Node; "
            "from controlplane.audit.services import Actor; "
            "services.split_node(Node.objects.get(name='sim-b').pk, preset='2x2', actor=Actor.system('test'))"
        ),
    )
    expect(page.locator("#parts tr[data-part]")).to_have_count(2)


def test_a_lost_server_is_told_and_found_again(page: Page, fleet: Fleet, password: str, site: Running) -> None:
    sign_in(page, password)
    light = page.locator("#light")
    expect(light).to_have_attribute("data-state", "live")
    site.end("web")
    expect(light).to_have_text(re.compile(r"lost since \d\d:\d\d:\d\d UTC, "))
    expect(light).to_contain_text("the server does not answer")
    expect(row(page, "sim-a")).to_have_class(re.compile("silent"))
    expect(row(page, "sim-a").locator(".meta")).to_contain_text("not heard of for")
    expect(row(page, "sim-a").locator(".cell")).to_have_count(4)
    site.start_web()
    expect(light).to_have_attribute("data-state", "live", timeout=30_000)
    expect(row(page, "sim-a")).not_to_have_class(re.compile("silent"))


def test_without_the_socket_the_page_polls_and_says_so(page: Page, fleet: Fleet, password: str) -> None:
    page.route_web_socket("**/ws/live*", lambda socket: socket.close())
    sign_in(page, password)
    expect(page.locator("#light")).to_contain_text("polling every 5 s")
    expect(row(page, "sim-a").locator(".cell")).to_have_count(4)
    with page.expect_response("**/api/v1/live"):
        page.wait_for_timeout(5500)


def test_a_gap_in_the_frames_fetches_a_fresh_picture(page: Page, fleet: Fleet, password: str) -> None:
    """Every fifth frame is swallowed on its way."""
    seen = {"frames": 0}

    def through(socket: object) -> None:
        server = socket.connect_to_server()

        def pass_on(message: str) -> None:
            seen["frames"] += 1
            if seen["frames"] % 5:
                socket.send(message)

        server.on_message(pass_on)

    page.route_web_socket("**/ws/live*", through)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url) if request.url.endswith("/api/v1/live") else None)
    sign_in(page, password)
    expect(page.locator("#light")).to_have_attribute("data-state", "live")
    before = len(fetched)
    page.wait_for_timeout(8000)
    assert seen["frames"] >= 6
    assert len(fetched) > before
    expect(page.locator("#light")).to_have_attribute("data-state", "live")


def test_a_phone_needs_no_sideways_scrolling(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    page.set_viewport_size({"width": 380, "height": 800})
    for path in (
        "/",
        "/models/",
        "/nodes/",
        "/activity/",
        "/settings/",
        "/settings/keys",
        "/settings/users",
        "/nodes/add",
    ):
        page.goto(path)
        page.wait_for_timeout(300)
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{path} is {over} px too wide"
