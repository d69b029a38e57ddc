"""What the tests of the assignment board share: the fleet on it, its lanes and pieces, and how they are dragged."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from playwright.sync_api import Error, Locator, Page, expect

from tests.browser import lone
from tests.browser.conftest import sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running

site = lone.site

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
