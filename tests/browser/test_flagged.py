"""A GPU that did not pass its qualification, in a real Chromium: shown where people look, accepted, and taken back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import picture, sign_in
from tests.browser.feigned import FeignedNode, Fleet
from tests.browser.running import Running
from tests.browser.test_live import ISSUE
from workers.contract import DeviceKind, NodeReport
from workers.qualification import Figures, Qualification, QualifyState

RATES = (98.5, 99.0, 97.9, 60.5)  # TFLOP/s; 121 are published
FOUND = "60.5 TFLOP/s is 50% of what is published"


class Measured(FeignedNode):
    """Simulated GPUs are never measured: these say that they are real, and what each came to."""

    def told(self) -> NodeReport:
        told = super().told()
        wanted = self.spec.qualify if self.spec else ()
        rates = dict(zip((device.uuid for device in told.devices), RATES, strict=True))
        said = (
            Qualification(
                id=one.id,
                gpu=one.gpu,
                state=QualifyState.DONE,
                figures=Figures(torch="2.9.0", bf16_tflops=rates[one.gpu], memory_gbs=251.0),
            )
            for one in wanted
        )
        devices = (msgspec.structs.replace(device, kind=DeviceKind.NVIDIA) for device in told.devices)
        return msgspec.structs.replace(told, simulated=False, devices=tuple(devices), qualifications=tuple(said))


@pytest.fixture(scope="module")
def fleet(site: Running, password: str) -> Iterator[Fleet]:
    node = Measured(site.web, "gpu-a", gpus=4, kind="NVIDIA L4")
    node.join(site.manage("shell", "-v", "0", "-c", ISSUE).strip())
    with Fleet([node]) as running:
        yield running


def test_a_flagged_gpu_is_shown_accepted_and_taken_back(page: Page, fleet: Fleet, password: str) -> None:
    sign_in(page, password)
    expect(page.locator("#map .cell.sick")).to_have_count(1)
    expect(page.locator("#k-gpus-sub")).to_contain_text("1 unhealthy")
    page.locator("#map .cell").nth(3).click()
    expect(page.locator("#panel")).to_contain_text("did not pass its qualification")
    expect(page.locator("#panel")).to_contain_text(FOUND)

    page.goto(f"/nodes/{fleet.nodes[0].id}/")
    slow = page.locator("#qualification .qual", has_text=FOUND)
    expect(slow.locator(".chip")).to_have_text("below the bar")
    expect(page.locator("#qualification .chip", has_text=re.compile("^fit$"))).to_have_count(3)
    picture(page, "flagged-gpu")
    slow.get_by_label("may be used as it is").fill("drafts only")
    slow.get_by_role("button", name="Accept as it is").click()
    expect(slow.locator(".chip")).to_have_text("accepted")
    expect(slow).to_contain_text("drafts only")
    page.goto("/")
    expect(page.locator("#map .cell")).to_have_count(4)
    expect(page.locator("#map .cell.sick")).to_have_count(0)

    page.goto(f"/nodes/{fleet.nodes[0].id}/")
    slow.get_by_role("button", name=re.compile("Take back")).click()
    expect(slow.locator(".chip")).to_have_text("below the bar")
