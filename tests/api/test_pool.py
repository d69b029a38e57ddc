"""The pool over REST."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.fleet import verified
from controlplane.fleet.models import Activation, Partition
from controlplane.fleet.publish import publish
from controlplane.fleet.services.waking import Ask, wake
from controlplane.planning import keeping
from tests.factories import make_deployment, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


def test_it_tells_slots_and_who_waits(as_role: Callable[[str], APIClient]) -> None:
    later = timezone.now() + timedelta(minutes=1)  # however slow the machine is
    node = make_node("n1", last_seen=later)
    verified.beat("gw:1", "", later)
    there = make_deployment("there", mode="pooled", keep_alive_s=60)
    partition = make_partition(node, deployment=there, role="aggregated", pool=True)
    publish(node)
    make_ready(Partition.objects.get(pk=partition.pk))
    make_partition(node, pool=True)
    make_deployment("rare", mode="pooled")
    wake({"rare": Ask(4)})
    found = as_role("viewer").get("/api/v1/pool").json()
    first, second = found["slots"]
    assert (first["place"], first["deployment"]["name"], first["in_flight"]) == ("active", "there", 0)
    assert (first["keep_alive_s"], first["keep_alive_why"]) == (60, "as the deployment has it")
    assert (second["place"], second["deployment"]["name"], second["idle_s"]) == ("starting", "rare", None)
    [waiting] = found["waiting"]
    assert (waiting["deployment"]["name"], waiting["state"], waiting["waiters"]) == ("rare", "starting", 4)
    [listed] = as_role("viewer").get("/api/v1/activations?state=starting").json()["results"]
    assert listed["id"] == Activation.objects.get().pk
    assert listed["slot"] == "n1/p1"


def test_who_was_active_lately_is_told_of_pooled_models_alone(as_role: Callable[[str], APIClient]) -> None:
    now = timezone.now().timestamp()
    past = Requests.of(("rare", "fixed"), [0, 1], [now - 7200, now - 3600], [now - 7100, now - 3000])
    keeping.save_import(past, actor=Actor.system("test"), now=now)
    make_deployment("rare", mode="pooled")
    make_deployment("fixed")
    viewer = as_role("viewer")
    found = viewer.get("/api/v1/capacity/activity?hours=24&pooled=true").json()
    assert ([row["name"] for row in found["rows"]], found["span_s"]) == (["rare"], 86400)
    both = viewer.get("/api/v1/capacity/activity?hours=24").json()["rows"]
    assert {row["name"] for row in both} == {"rare", "fixed"}
    assert viewer.get("/api/v1/capacity/activity?hours=24&day=2026-01-01").status_code == 400
    assert viewer.get("/api/v1/capacity/activity?hours=0").status_code == 400


def test_a_partition_is_set_aside_with_a_patch(as_role: Callable[[str], APIClient]) -> None:
    partition, operator = make_partition(), as_role("operator")
    answer = operator.patch(f"/api/v1/partitions/{partition.pk}", {"pool": True, "reason": "night"}, format="json")
    assert answer.json()["pool"] is True
    assert [row["id"] for row in operator.get("/api/v1/partitions?pool=true").json()["results"]] == [partition.pk]
    assert operator.patch(f"/api/v1/partitions/{partition.pk}", {"name": "p9"}, format="json").status_code == 400


def test_a_deployment_takes_its_pooled_columns(as_role: Callable[[str], APIClient]) -> None:
    deployment, operator = make_deployment("chat"), as_role("operator")
    url = f"/api/v1/deployments/{deployment.pk}"
    answer = operator.patch(url, {"mode": "pooled", "keep_alive_s": 30, "priority": -5}, format="json").json()
    assert (answer["mode"], answer["keep_alive_s"], answer["priority"]) == ("pooled", 30, -5)
    assert operator.patch(url, {"priority": 101}, format="json").status_code == 400


def test_a_shape_is_changed_and_changed_back_without_touching_what_runs(as_role: Callable[[str], APIClient]) -> None:
    operator, large = as_role("operator"), make_deployment("large", mode="pooled")
    row = make_partition(node := make_node("n1"), deployment=large, role="aggregated", pool=True)
    publish(node)
    row = make_ready(Partition.objects.get(pk=row.pk))
    generation = row.generation
    url, before = f"/api/v1/deployments/{large.pk}", operator.get(f"/api/v1/deployments/{large.pk}").json()

    refused = operator.patch(f"{url}?dry_run=true", {"pool_shape": "pair"}, format="json")
    assert refused.status_code == 400, "it is not taken for a real change"
    assert operator.get(url).json() == before

    assert operator.patch(url, {"pool_shape": "pair"}, format="json").json() == {**before, "pool_shape": "pair"}
    [event] = operator.get("/api/v1/events?verb=change").json()["results"]
    assert (event["before"], event["after"]) == ({"pool_shape": "aggregated"}, {"pool_shape": "pair"})
    assert operator.patch(url, event["before"], format="json").json() == before
    row.refresh_from_db()
    assert (row.generation, row.role, row.phase) == (generation, "aggregated", "ready")
