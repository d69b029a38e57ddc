"""What others read of the fleet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
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


class TestNodeFacts:
    def test_a_node_as_the_live_view_shows_it(self) -> None:
        node = make_node("host-1", labels={"rack": "1"})
        partition = make_ready(make_partition(node, gpus=2, role="decode"), restarts=1)
        now = node.last_seen + timedelta(seconds=2.5)

        [facts] = selectors.node_facts(now)

        assert (facts["name"], facts["status"], facts["age_s"], facts["host"]) == ("host-1", "ready", 2.5, None)
        [shown] = facts["partitions"]
        assert shown["gpus"] == [gpu["id"] for gpu in facts["gpus"]]
        assert shown["deployment"] == {"id": partition.deployment_id, "name": partition.deployment.name}
        assert (shown["status"], shown["confirmed"], shown["restarts"]) == ("ready", True, 1)
        assert {gpu["partition"] for gpu in facts["gpus"]} == {partition.pk}
        assert facts["gpus"][0]["utilization"] is None

    def test_it_shows_no_key_and_endpoints_only_when_asked(self) -> None:
        partition = ready()
        now = timezone.now()

        assert partition.engine_key not in str(selectors.node_facts(now, endpoints=True))
        assert partition.endpoint not in str(selectors.node_facts(now))
        assert selectors.node_facts(now, endpoints=True)[0]["partitions"][0]["endpoint"] == partition.endpoint

    @pytest.mark.parametrize(
        ("columns", "status"),
        [
            ({}, "ready"), ({"schedulable": False}, "cordoned"), ({"revoked": True}, "revoked"),
            ({"last_seen": None}, "never_seen"), ({"last_seen": timezone.now() - timedelta(days=1)}, "silent"),
            ({"draining": True}, "drained"),
        ],
    )  # fmt: skip
    def test_status_is_derived(self, columns: dict, status: str) -> None:
        make_node(**columns)

        assert selectors.node_facts(timezone.now())[0]["status"] == status

    def test_a_node_with_an_engine_is_draining_until_it_is_gone_though_its_assignment_is_kept(self) -> None:
        partition = ready()
        Node.objects.filter(pk=partition.node_id).update(draining=True)

        before = selectors.node_facts(timezone.now())[0]["status"]
        type(partition).objects.update(phase="")
        after = selectors.node_facts(timezone.now())[0]["status"]

        assert (before, after) == ("draining", "drained")

    def test_more_nodes_cost_no_more_queries(self) -> None:
        counts = []
        for _ in range(2):
            make_partition(make_node(), gpus=2, role="decode")
            with CaptureQueriesContext(connection) as queries:
                selectors.node_facts(timezone.now())
            counts.append(len(queries))

        assert counts[0] == counts[1] <= 4

    def test_some_nodes_only(self) -> None:
        first, _ = make_node("a"), make_node("b")

        assert [facts["name"] for facts in selectors.node_facts(timezone.now(), nodes=[first.pk])] == ["a"]


def test_replicas_are_counted_by_deployment_and_role() -> None:
    deployment = make_deployment()
    make_partition(deployment=deployment, role="prefill")
    make_ready(make_partition(deployment=deployment, role="decode"))
    make_ready(make_partition(deployment=deployment, role="decode"), phase="starting")

    assert selectors.deployment_replicas() == {
        deployment.pk: {"prefill": {"assigned": 1, "ready": 0}, "decode": {"assigned": 2, "ready": 1}}
    }
