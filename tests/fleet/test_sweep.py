"""The sweep: what was changed behind the services' back arrives too."""

from __future__ import annotations

import pytest

from controlplane.celery import app
from controlplane.fleet.models import Node, Partition
from controlplane.fleet.tasks import sweep
from tests.factories import make_node, make_partition

pytestmark = pytest.mark.django_db


def test_an_edit_by_hand_in_the_database_is_published() -> None:
    partition = make_partition(role="prefill")
    sweep()
    Partition.objects.update(role="decode")

    sweep()

    node = Node.objects.get(pk=partition.node_id)
    assert node.generation == 2
    assert node.spec["replicas"][0]["role"] == "decode"


def test_sweeping_again_changes_nothing() -> None:
    make_partition(role="decode")
    for _ in range(3):
        sweep()

    assert Node.objects.get().generation == 1


def test_a_revoked_node_is_left_alone() -> None:
    make_node(revoked=True)

    sweep()

    assert Node.objects.get().generation == 0


def test_the_beat_knows_the_task_by_its_name() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}

    assert "fleet.sweep" in scheduled
    assert scheduled <= set(app.tasks)
