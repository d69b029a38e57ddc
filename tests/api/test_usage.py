"""Usage, cost and prices over REST."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from controlplane.costs import counting
from controlplane.costs.report import Asked, report
from tests.api.conftest import problem_of
from tests.costs.conftest import HOUR, LATER, Past, past  # noqa: F401

RANGE = f"since={HOUR:%Y-%m-%dT%H:%M:%SZ}&until={HOUR + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"


def usage(client: APIClient, by: str) -> dict:
    response = client.get(f"/api/v1/usage?by={by}&{RANGE}")
    assert response.status_code == 200, response.content
    return response.json()


@pytest.fixture
def counted(past: Past, admin: APIClient) -> Past:  # noqa: F811
    """40 s of four engines' GPUs for a key, at 3.60 an hour of each GPU."""
    past.gpus_up()
    past.up(past.prefill)
    past.up(past.decode)
    past.asked(0, 40)
    past.asked(1800, 40, api_key=None)
    price = {"nodes": ["alpha"], "per_gpu_hour": 3.6, "since": HOUR.isoformat(), "reason": "contract"}
    made = admin.post("/api/v1/prices", price, format="json")
    assert made.status_code == 201, made.content
    assert made.json()["prices"][0]["per_gpu_hour"] == 3.6
    counting.count(LATER)
    return past


def test_usage_is_told_by_team_model_key_node_and_share(counted: Past, viewer: APIClient) -> None:
    teams = usage(viewer, "team")
    assert [group["name"] for group in teams["groups"]] == ["owners", None, "users"]
    mine = teams["groups"][2]
    assert mine["gpu_s"] == pytest.approx({"active": 80, "reserved": 0, "idle": 0})
    assert (mine["cost"], mine["requests"], mine["prompt_tokens"]) == (pytest.approx(0.08), 1, 1000)
    assert mine["per_million"] == pytest.approx(
        {"input": 0.02 / 1000 * 1e6, "output": 0.06 / 100 * 1e6, "active": 0.08 / 1100 * 1e6, "all": 0.08 / 1100 * 1e6}
    )
    assert teams["total"]["cost"] == pytest.approx(18.0)
    assert teams["total"]["per_million"]["all"] == pytest.approx(18 / 2200 * 1e6)
    assert {group["name"] for group in usage(viewer, "model")["groups"]} == {"chat", None}
    assert {group["name"] for group in usage(viewer, "key")["groups"]} == {"bot", None}
    assert {group["name"] for group in usage(viewer, "node")["groups"]} == {"alpha"}
    shares = {group["name"]: group["cost"] for group in usage(viewer, "share")["groups"]}
    assert shares == pytest.approx({"active": 0.16, "reserved": 14.24, "idle": 3.6})


def test_the_series_add_up_to_the_total_and_the_small_ones_are_together(counted: Past) -> None:
    found = report(Asked("team", HOUR, HOUR + timedelta(hours=1)), alone=1)
    assert [(one["name"], one["others"]) for one in found["series"]] == [("owners", False), (None, True)]
    points = [point for one in found["series"] for point in one["points"]]
    assert {point[0] for point in points} == {HOUR.timestamp()}
    assert sum(point[1] for point in points) == pytest.approx(5 * 3600)
    assert sum(point[2] for point in points) == pytest.approx(found["total"]["cost"])


def test_what_is_not_known_is_null(past: Past, viewer: APIClient) -> None:  # noqa: F811
    empty = usage(viewer, "team")
    assert (empty["groups"], empty["counted_at"], empty["recorded_since"]) == ([], None, None)
    past.up(past.decode)
    past.asked(0, 40, path="direct", prefill="", prefill_ms=None, ttft_ms=None)
    counting.count(LATER)
    [mine] = [group for group in usage(viewer, "team")["groups"] if group["name"] == "users"]
    assert (mine["cost"], mine["costs"]["active"], mine["unpriced_gpu_s"]) == (None, None, pytest.approx(80))
    assert set(mine["per_million"].values()) == {None}
    assert [point[2] for one in usage(viewer, "team")["series"] for point in one["points"]] == [None] * 2


def test_the_rows_come_as_csv(counted: Past, viewer: APIClient) -> None:
    response = viewer.get(f"/api/v1/usage/export?{RANGE}")
    assert response["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.getvalue().decode())))
    assert len(rows) == 4
    assert sum(float(row["gpu_s"]) for row in rows) == pytest.approx(5 * 3600)
    [mine] = [row for row in rows if row["key"] == "bot"]
    assert (mine["team"], mine["deployment"], mine["share"], mine["cost"], mine["currency"]) == (
        "users", "chat", "active", "0.080000", "USD",
    )  # fmt: skip


@pytest.mark.parametrize(
    "query", ["by=colour", "since=tomorrow", "since=2026-02-02T00:00:00Z&until=2026-02-01T00:00:00Z", "team=a"]
)
def test_a_question_that_makes_no_sense_is_refused(query: str, viewer: APIClient) -> None:
    problem_of(viewer.get(f"/api/v1/usage?{query}"), 400)
    problem_of(viewer.get(f"/api/v1/usage/export?{query}"), 400)


def test_a_price_of_many_nodes_is_set_for_all_or_none(past: Past, admin: APIClient) -> None:  # noqa: F811
    body = {"nodes": ["alpha", "beta"], "per_gpu_hour": 2}
    assert "no node beta" in str(problem_of(admin.post("/api/v1/prices", body, format="json"), 400))
    assert admin.get("/api/v1/prices").json()["count"] == 0
    assert admin.post("/api/v1/prices", {"nodes": ["alpha"], "per_gpu_hour": None}, format="json").status_code == 201
    [row] = admin.get(f"/api/v1/prices?node={past.node.pk}").json()["results"]
    assert (row["node"]["name"], row["per_gpu_hour"]) == ("alpha", None)
