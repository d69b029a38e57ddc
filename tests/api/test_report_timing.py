"""Every answer to a node's report is counted and timed by the web process."""

from __future__ import annotations

import httpx
import msgspec
import pytest
from asgiref.sync import sync_to_async
from prometheus_client import REGISTRY

from controlplane.asgi import application
from tests.factories import make_node, token_of
from workers.contract import NodeReport

pytestmark = pytest.mark.django_db(transaction=True)


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("forebay_reports_total", {"outcome": outcome}) or 0.0


def timed() -> float:
    return REGISTRY.get_sample_value("forebay_report_duration_seconds_count") or 0.0


async def test_reports_are_counted_by_what_became_of_them() -> None:
    node = await sync_to_async(make_node)()
    report = NodeReport(node=node.pk, instance=node.instance, boot=node.boot, seq=1, at=1.0, generation=0)
    before = {outcome: count(outcome) for outcome in ("taken", "refused", "failed")}
    timed_before = timed()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as client:
        for token, expected in ((token_of(node), 200), ("no such token", 401)):
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            answer = await client.post("/agent/v1/report", content=msgspec.json.encode(report), headers=headers)
            assert answer.status_code == expected, answer.text
        await client.get("/health")

    assert {outcome: count(outcome) - of for outcome, of in before.items()} == {"taken": 1, "refused": 1, "failed": 0}
    assert timed() - timed_before == 2
