"""A plan from its proposal to its end in a real Chromium: seen, applied with a reason, followed, undone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser import lone
from tests.browser.boarding import ISSUE, shell
from tests.browser.conftest import picture, sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running

site = lone.site

SETUP = """
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Node
from tests.browser.furnish import folder
actor = Actor.system("test")
model = services.register_model(name="llama-8b", source=folder("llama-8b", 15.0), actor=actor)
more = {"engine_args": ["--max-model-len", "8192"], "slo_ttft_ms": 500, "slo_itl_ms": 40, "actor": actor}
chat = services.create_deployment(name="chat", model_id=model.pk, max_decode=2, **more)
for row, role in zip(services.split_node(Node.objects.get().pk, preset="4x1", actor=actor), ("prefill", "decode")):
    services.assign(row.pk, deployment_id=chat.pk, role=role, actor=actor, reason="first layout")
"""
READY = "from controlplane.fleet.models import Partition; print(Partition.objects.filter(phase='ready').count())"
LOOK = (
    "from django.utils import timezone; from controlplane.scaling.proposing import propose; "
    "print(propose(timezone.now()))"
)


@pytest.fixture
def chat(site: Running) -> Iterator[Fleet]:
    """A simulated node of four GPUs: a prefill and a decode engine of `chat`, at which feigned requests wait."""
    node = FeignedNode(site.web, "sim-a", gpus=4, starts_s=3.0)
    node.join(shell(site, ISSUE))
    with Fleet([node]) as fleet:
        time.sleep(2.5)  # the first reports bring the GPUs
        shell(site, SETUP)
        for _ in range(60):
            if shell(site, READY).splitlines()[-1] == "2":
                break
            time.sleep(0.5)
        yield fleet


def test_a_plan_is_seen_applied_followed_and_undone(page: Page, chat: Fleet, site: Running, password: str) -> None:
    sign_in(page, password)
    page.goto("/scaling/")
    expect(page.get_by_role("alert")).to_contain_text("Nobody has looked yet")
    assert "scaling plan" in shell(site, LOOK)

    plan = page.locator("#scaling-open")  # it comes by itself
    expect(plan.get_by_role("heading", name=re.compile(r"Plan \d+"))).to_be_visible()
    expect(plan).to_contain_text(re.compile(r"chat decode 1 to 2: [1-9]\d* waiting at 1 engine"))
    expect(plan).to_contain_text("1 → 2")
    expect(plan).to_contain_text("automatic applying is off")
    expect(page.locator("#scaling-now")).to_contain_text("pressure")
    plan.get_by_label("Reason").fill("as it says")
    page.wait_for_timeout(6000)  # past a refresh, which leaves alone what somebody writes
    expect(plan.get_by_label("Reason")).to_have_value("as it says")
    picture(page, "scaling-open")

    plan.get_by_role("button", name="Apply").click()
    expect(page).to_have_url(re.compile(r"/changes/\d+/"))
    expect(page.locator("main")).to_contain_text("as it says")
    expect(page.locator(".progress")).to_have_attribute("data-state", "done", timeout=30_000)
    picture(page, "scaling-applied")
    page.goto("/scaling/")
    expect(page.locator("main")).to_contain_text("Nothing is proposed")
    page.get_by_role("link", name=re.compile(r"change \d+")).click()

    page.get_by_role("link", name="Undo").click()
    page.get_by_label("Reason").fill("and back")
    page.get_by_role("button", name=re.compile("Apply")).click()
    expect(page.locator("main")).to_contain_text("and back")
    expect(page.locator(".progress")).to_have_attribute("data-state", "done", timeout=30_000)
    assert shell(site, LOOK).splitlines()[-1] == "None"  # what was undone is not proposed again for an hour
