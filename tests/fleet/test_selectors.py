"""What others read of the fleet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet import selectors, services
from controlplane.fleet.models import Node
from tests.factories import make_deployment, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


def ready(**columns: Any) -> Any:
    return make_ready(make_partition(role="decode", generation=3), **columns)


class TestRoutingRows:
    def test_a_confirmed_partition_is_routable(self) -> None:
        partition = ready()

        [row] = selectors.routing_rows(timezone.now())

        assert (row.partition, row.name) == (partition.pk, f"{partition.node.name}/p0")
        assert (row.deployment, row.role) == (partition.deployment.name, "decode")
        assert (row.endpoint, row.engine_key) == (partition.endpoint, partition.engine_key)

    @pytest.mark.parametrize(
        "columns",
        [
            {"phase": "starting"}, {"phase": "draining"}, {"phase": "asleep"}, {"phase": ""},
            {"observed_generation": 2}, {"observed_generation": 4}, {"observed_role": "prefill"}, {"endpoint": ""},
            {"deployment": None, "role": "", "observed_role": ""},
        ],
    )  # fmt: skip
    def test_anything_less_is_not(self, columns: dict) -> None:
        ready(**columns)

        assert selectors.routing_rows(timezone.now()) == []

    @pytest.mark.parametrize("node", [{"revoked": True}, {"last_seen": timezone.now() - timedelta(seconds=11)}])
    def test_nor_is_one_on_a_node_that_is_gone(self, node: dict) -> None:
        partition = ready()
        Node.objects.filter(pk=partition.node_id).update(**node)

        assert selectors.routing_rows(timezone.now()) == []

    def test_a_flip_takes_the_partition_out_at_once(self, actor: Actor) -> None:
        """Drain begins with no message at all: the desired generation has moved on."""
        partition = make_partition()
        deployment = make_deployment()
        services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor)
        partition.refresh_from_db()
        make_ready(partition)
        assert len(selectors.routing_rows(timezone.now())) == 1

        services.assign(partition.pk, deployment_id=deployment.pk, role="prefill", actor=actor)

        assert selectors.routing_rows(timezone.now()) == []

    def test_a_cordoned_node_serves_on(self) -> None:
        partition = ready()
        Node.objects.filter(pk=partition.node_id).update(schedulable=False)

        assert len(selectors.routing_rows(timezone.now())) == 1


def test_deployments_are_known_by_all_their_names_whether_or_not_anything_serves_them() -> None:
    make_deployment("chat", aliases=["chat-v1"], min_transfer_tokens=64)

    [row] = selectors.served_rows()

    assert row.roles_alike
    assert (row.deployment, row.aliases, row.min_transfer_tokens) == ("chat", ("chat-v1",), 64)


def test_a_redacted_spec_differs_from_the_real_one_in_the_keys_alone(actor: Actor) -> None:
    partition = make_partition()
    key = services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor).engine_key
    node = Node.objects.get(pk=partition.node_id)

    redacted = selectors.redacted_spec(node)

    assert key not in str(redacted)
    assert redacted["replicas"][0]["api_key"] == "hidden"
    redacted["replicas"][0]["api_key"] = key
    assert redacted == node.spec


def test_a_node_without_a_spec_has_none_to_show() -> None:
    assert selectors.redacted_spec(make_node()) is None
