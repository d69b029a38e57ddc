"""The Pool page: who is in which slot, who waits, setting partitions aside."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet import pool_use, verified
from controlplane.fleet.models import Activation, Deployment, Partition, Sleeper
from controlplane.fleet.services import pool as services
from controlplane.gateway.models import DemandMinute
from controlplane.teams.services import change_team, create_team
from tests.factories import make_deployment, make_node, make_partition, make_ready
from tests.web.conftest import Clients

pytestmark = pytest.mark.django_db


@pytest.fixture
def pool() -> Partition:
    """Four slots: one active, one idle, one free, one of a node that is silent; and a model that waits."""
    node, now = make_node("n1"), timezone.now()
    verified.beat("gw:1", "", now + timedelta(hours=1))
    for name, ago_s, in_flight in (("busy", 1, 2), ("done", 900, 0)):
        deployment = make_deployment(name, mode="pooled", keep_alive_s=300)
        row = make_partition(node, deployment=deployment, role="aggregated", pool=True)
        make_ready(row, phase_since=now - timedelta(hours=1))
        pool_use.write("gw:1", [(name, in_flight, now.timestamp() - ago_s)])
    free = make_partition(node, pool=True)
    make_ready(make_partition(make_node("n2", heard=False), deployment=make_deployment(), role="decode", pool=True))
    waits = make_deployment("waits", mode="pooled")
    Activation.objects.create(
        deployment=waits, cause="request", state="waiting", reason="every slot is busy", waiters=7,
        asked_at=now - timedelta(seconds=12), wanted_at=now,
    )  # fmt: skip
    return free


def test_it_tells_who_is_where_and_who_waits(pool: Partition, as_role: Clients) -> None:
    page = as_role("viewer").get("/pool/").content.decode()
    for text in ("busy", "done", "active", "idle", "not usable", "every slot is busy", "15 min of 5 min", "waits"):
        assert text in page, text
    assert "Take out" not in page
    assert "Set aside" not in page


def test_what_was_asked_before_gateways_told_of_it_is_not_never(pool: Partition, as_role: Clients) -> None:
    rare, now = make_deployment("rare", mode="pooled"), timezone.now()
    make_deployment("unasked", mode="pooled")
    for days, arrivals in ((60, 1), (45, 3), (1, 0)):
        DemandMinute.objects.create(deployment=rare.name, minute=now - timedelta(days=days), arrivals=arrivals)
    page = " ".join(as_role("viewer").get("/pool/").content.decode().split())
    asked = {name: page.partition(f">{name}<")[2][:400] for name in ("rare", "unasked")}
    assert "45 d ago" in asked["rare"] and "never" in asked["unasked"]


def test_what_is_to_be_held_is_told_by_size_on_the_page_and_over_rest(pool: Partition, as_role: Clients) -> None:
    aim = {"keep_alive_s": 300, "reason": "99% sure", "now": timezone.now()}
    for sizes, said, told in (({1: 3, 2: 2}, "5 to be held in all: 3 of 1 GPU, 2 of 2", {"1": 3, "2": 2}),
                              ({1: 5}, "5 to be held in all<", {})):  # fmt: skip
        services.aim(slots=5, by_gpus=sizes, **aim)
        assert said in as_role("viewer").get("/pool/").content.decode()
        assert as_role("viewer").get("/api/v1/pool").json()["held_by_gpus"] == told


def test_floors_of_teams_are_told_on_the_page_over_rest_and_when_the_pool_is_too_small(
    pool: Partition, as_role: Clients, actor: Actor
) -> None:
    assert "Floors of teams" not in as_role("viewer").get("/pool/").content.decode()
    team = create_team(name="search", pool_floor=2, deployments=["busy"], actor=actor)
    page = as_role("viewer").get("/pool/").content.decode()
    assert "1 of 2 GPUs" in page and "1 GPU kept for them" in page
    change_team(team.pk, pool_floor=9, actor=actor)
    page = as_role("viewer").get("/pool/").content.decode()
    assert "7 GPUs of 8 owed are not free now" in page and "The pool has 4 GPUs, and floors come to 9" in page
    found = as_role("viewer").get("/api/v1/pool").json()
    assert found["floors"] == [{"team": "search", "floor": 9, "used": 1}] and found["floors_lacking"] == 7
    assert "9 GPUs" in as_role("viewer").get("/cost/teams/").content.decode()


def test_what_has_not_changed_is_not_sent_again(pool: Partition, as_role: Clients) -> None:
    Activation.objects.all().delete()
    Partition.objects.exclude(pk=pool.pk).delete()
    page = as_role("viewer").get("/pool/now").content.decode()
    key = page.split("?key=")[1].split('"')[0]
    assert as_role("viewer").get(f"/pool/now?key={key}").status_code == 204


def test_a_partition_is_set_aside_and_taken_back(pool: Partition, as_role: Clients) -> None:
    other = make_partition(pool.node)
    assert f'value="{other.pk}"' in as_role("operator").get("/pool/").content.decode()
    as_role("operator").post("/pool/add", {"partition": other.pk, "reason": "more of them"})
    other.refresh_from_db()
    assert other.pool
    as_role("operator").post(f"/pool/{other.pk}/set", {"pool": "0"})
    other.refresh_from_db()
    assert not other.pool
    assert as_role("operator").post("/pool/add", {"partition": "x"}).status_code == 404


def test_without_slots_and_models_it_says_what_to_do(as_role: Clients, db: None) -> None:
    page = as_role("operator").get("/pool/").content.decode()
    assert "The pool has no slots" in page
    assert "/deployments/new?mode=pooled" in page


def test_a_deployment_is_made_pooled_in_its_form(as_role: Clients, db: None) -> None:
    there = make_deployment("chat")
    given = {
        "name": "chat", "model_id": there.model_id, "kv_connector": "NixlConnector", "min_transfer_tokens": 0,
        "drain_s": 60, "mode": "pooled", "keep_alive_s": 90, "priority": "",
        **{f"min_{role}": 0 for role in ("prefill", "decode", "aggregated")},
    }  # fmt: skip
    answer = as_role("operator").post(f"/deployments/{there.pk}/edit", given)
    assert answer.status_code == 302, answer.content.decode()
    there = Deployment.objects.get(pk=there.pk)
    assert (there.mode, there.keep_alive_s, there.priority) == ("pooled", 90, 0)


def test_a_lent_slot_says_to_whom_and_why_on_the_page_over_rest_and_beside_the_deployments_own(
    pool: Partition, as_role: Clients
) -> None:
    now, steady = timezone.now(), make_deployment("steady", overflow=True, decode_max_requests=4, keep_alive_s=300)
    Partition.objects.filter(pk=pool.pk).update(deployment=steady, role="aggregated", overflow=True)
    pool.refresh_from_db()
    make_ready(pool, phase_since=now - timedelta(hours=1))
    pool_use.write("gw:1", [("steady", 2, now.timestamp())])
    why = "its own engines are full, and 3 requests wait; the smallest free slot that holds it"
    Activation.objects.create(
        deployment=steady, partition=pool, cause="overflow", state="ready", reason=why, asked_at=now, wanted_at=now,
        placed_at=now, ended_at=now,
    )  # fmt: skip
    viewer = as_role("viewer")
    page = viewer.get("/pool/").content.decode()
    assert f"lent: {why}" in page
    assert ", 1 lent</dd>" in page
    [slot] = [one for one in viewer.get("/api/v1/pool").json()["slots"] if one["partition"]["id"] == pool.pk]
    assert (slot["place"], slot["lent_why"], slot["in_flight"]) == ("lent", why, 2)
    page = viewer.get(f"/deployments/{steady.pk}/").content.decode()
    assert "overflow, in the pool" in page
    assert "a slot of the pool, when full or none is ready" in page
    assert 'forebay_pool_lent_slots{deployment="steady"} 1.0' in viewer.get("/metrics").content.decode()


def test_the_halves_of_a_pair_are_told_together_on_the_page_over_rest_and_in_their_activation(
    pool: Partition, as_role: Clients
) -> None:
    now, large = timezone.now(), make_deployment("large", mode="pooled", pool_shape="pair", keep_alive_s=300)
    halves = {
        role: make_ready(
            make_partition(pool.node, deployment=large, role=role, pool=True), phase_since=now - timedelta(hours=1)
        )
        for role in ("prefill", "decode")
    }
    both = f"{halves['prefill']} + {halves['decode']}"
    Activation.objects.create(
        deployment=large, shape="pair", partition=halves["prefill"], partner=halves["decode"], cause="request",
        state="ready", slot=both, asked_at=now, wanted_at=now, placed_at=now, ended_at=now,
    )  # fmt: skip
    viewer = as_role("viewer")
    page = viewer.get("/pool/").content.decode()
    for text in (f"with {halves['prefill']}", f"with {halves['decode']}", "pair"):
        assert text in page, text
    unbroken = " + ".join(f'<span class="nowrap">{slot}</span>' for slot in both.split(" + "))
    assert unbroken in page
    assert 'Idle models</dt><dd class="v">2<' in page, "the pair is one"
    slots = {one["partition"]["id"]: one for one in viewer.get("/api/v1/pool").json()["slots"]}
    assert {role: (slots[row.pk]["role"], slots[row.pk]["pair_with"]) for role, row in halves.items()} == {
        "prefill": ("prefill", [str(halves["decode"])]), "decode": ("decode", [str(halves["prefill"])]),
    }  # fmt: skip
    assert slots[pool.pk]["pair_with"] == [] and slots[pool.pk]["role"] is None
    [told] = viewer.get("/api/v1/activations?state=ready").json()["results"]
    assert (told["shape"], told["partition"]["id"], told["partner"]["id"]) == (
        "pair", halves["prefill"].pk, halves["decode"].pk,
    )  # fmt: skip
    assert "a pair: prefill and decode, in two slots" in viewer.get(f"/deployments/{large.pk}/").content.decode()


def test_the_shape_is_chosen_in_the_form_and_over_rest_and_what_cannot_be_a_pair_is_refused(as_role: Clients) -> None:
    large, client = make_deployment("large", mode="pooled"), as_role("operator")
    assert "pair: prefill and decode, two slots" in client.get(f"/deployments/{large.pk}/edit").content.decode()
    url = f"/api/v1/deployments/{large.pk}"
    changed = client.patch(url, {"pool_shape": "pair"}, content_type="application/json")
    assert changed.json()["pool_shape"] == "pair"
    assert client.patch(url, {"pool_shape": "three"}, content_type="application/json").status_code == 400
    refused = client.patch(url, {"decode_args": ["--dtype=float32"]}, content_type="application/json")
    assert (refused.status_code, "they must be equal" in refused.content.decode()) == (400, True)
    form = {"name": "large", "model_id": large.model_id, "mode": "pooled", "drain_s": 120, "min_transfer_tokens": 0,
            "kv_connector": "NixlConnector", "priority": 0, "min_prefill": 0, "min_decode": 0, "min_aggregated": 0,
            "pool_shape": "aggregated"}  # fmt: skip
    assert client.post(f"/deployments/{large.pk}/edit", form).status_code == 302
    large.refresh_from_db()
    assert large.pool_shape == "aggregated"


def test_overflow_is_allowed_in_the_form_and_over_rest(as_role: Clients) -> None:
    steady, client = make_deployment("steady"), as_role("operator")
    page = client.get(f"/deployments/{steady.pk}/edit").content.decode()
    assert "Overflow into the pool" in page
    url = f"/api/v1/deployments/{steady.pk}"
    changed = client.patch(url, {"overflow": True, "aggregated_max_requests": 8}, content_type="application/json")
    assert (changed.json()["overflow"], changed.json()["aggregated_max_requests"]) == (True, 8)
    form = {"name": "steady", "model_id": steady.model_id, "mode": "dedicated", "drain_s": 120,
            "min_transfer_tokens": 0, "kv_connector": "NixlConnector", "priority": 0, "min_prefill": 0, "min_decode": 0,
            "min_aggregated": 0, "decode_max_requests": 4}  # fmt: skip
    assert client.post(f"/deployments/{steady.pk}/edit", form).status_code == 302
    steady.refresh_from_db()
    assert (steady.overflow, steady.decode_max_requests, steady.aggregated_max_requests) == (False, 4, None)
    client.post(f"/deployments/{steady.pk}/edit", form | {"overflow": "on"})
    steady.refresh_from_db()
    assert steady.overflow


def test_who_sleeps_beside_whom_is_told_on_the_page_over_rest_and_to_prometheus(
    pool: Partition, as_role: Clients, settings: Any
) -> None:
    busy, far = Partition.objects.get(deployment__name="busy"), make_deployment("far", mode="pooled")
    since = timezone.now() - timedelta(minutes=5)
    Sleeper.objects.create(
        partition=busy, deployment=far, engine_key="hidden-key", left_at=since, asleep_since=since, level=2,
        host_bytes=3 * 2**30, gpu_bytes=2**30,
    )  # fmt: skip
    viewer = as_role("viewer")
    page = viewer.get("/pool/").content.decode()
    assert (
        "sleeps without its weights, for 5 min" in page
        and "leave when needed; 1 asleep" in page
        and "hidden-key" not in page
    )
    found = viewer.get("/api/v1/pool")
    assert "hidden-key" not in found.content.decode() and found.json()["sleepers_wanted"] == 0
    by_id = {slot["partition"]["id"]: slot for slot in found.json()["slots"]}
    [one] = by_id[busy.pk]["sleepers"]
    assert (one["deployment"]["name"], one["level"], one["gpu_bytes"]) == ("far", 2, 2**30)
    assert "switched off" in by_id[busy.pk]["sleep_why_not"] and by_id[pool.pk]["sleepers"] == []
    settings.POOL_SLEEPERS = 2
    assert "not said" in viewer.get("/api/v1/pool").json()["slots"][0]["sleep_why_not"]
    assert 'forebay_pool_sleepers{level="2"} 1.0' in viewer.get("/metrics").content.decode()
