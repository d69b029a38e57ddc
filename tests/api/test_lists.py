"""The lists that are read as plain columns say of each row what its serializer says of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.test import APIClient, APIRequestFactory

from controlplane.api.shapes import GpuShape, NodeShape, PartitionShape
from controlplane.fleet.models import Gpu, Node, Partition
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready, make_user

pytestmark = pytest.mark.django_db
SHAPES = {"nodes": (Node, NodeShape), "gpus": (Gpu, GpuShape), "partitions": (Partition, PartitionShape)}


@pytest.fixture
def fleet() -> None:
    """Of every sort one: ready, silent, cordoned, draining, kept by owners, never heard; assigned, failed and free."""
    kept = make_node("kept", restricted=True, labels={"rack": "b"})
    kept.owners.add(make_user("operator"))
    make_node("silent", heard=False, clock_skew_s=0.25, simulated=True)
    make_node("never", last_seen=None, gpus=1)
    make_node("cordoned", schedulable=False, revoked=True)
    make_ready(
        make_partition(make_node("drains", draining=True, drain_began_at=timezone.now()), role="decode", gpus=3),
    )
    ready = make_ready(make_partition(kept, role="prefill", deployment=make_deployment("chat"), gpus=2, generation=3))
    Partition.objects.filter(pk=ready.pk).update(verified_generation=3, verified_at=timezone.now(), ready_after_s=2.5)
    looping = make_partition(kept, role="decode", phase="exited", restarts=4, message="out of memory", generation=1)
    Partition.objects.filter(pk=looping.pk).update(observed_generation=1, failed_generation=1, verify_message="refused")
    make_ready(make_partition(Node.objects.get(name="silent"), role="aggregated"))
    make_gpu(kept, peers=["GPU-1"], health="lost", health_detail="Xid 79", present=False, foreign=True)


@pytest.mark.parametrize("role", ["viewer", "operator"])
@pytest.mark.parametrize("what", SHAPES)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_a_list_says_what_the_serializer_says(
    what: str, role: str, zone: str, fleet: None, settings: Any, as_role: Callable[[str], APIClient]
) -> None:
    settings.TIME_ZONE = zone
    model, shape = SHAPES[what]
    listed = as_role(role).get(f"/api/v1/{what}").json()["results"]
    request = APIRequestFactory().get("/")
    request.user = make_user(role)
    whole = shape(model.objects.all(), many=True, context={"request": request}).data
    assert {row["id"]: row for row in listed} == {row["id"]: row for row in json.loads(JSONRenderer().render(whole))}
    assert len(listed) == model.objects.count() > 2
