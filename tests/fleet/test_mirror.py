"""Whatever a page may show of the fleet is read again once the database has something else, and nothing else is."""

from __future__ import annotations

import gc
import threading
import weakref
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from controlplane.fleet import mirror
from controlplane.fleet.mirror import Mirror
from controlplane.fleet.models import Deployment, Gpu, Node, Partition
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db
LATER = timezone.now() + timedelta(seconds=5)

CHANGES: list[tuple[Any, dict[str, Any]]] = [
    (Node, {"name": "renamed"}),
    (Node, {"labels": {"rack": "b"}}),
    (Node, {"schedulable": False}),
    (Node, {"draining": True, "drain_began_at": LATER}),
    (Node, {"drain_deadline_at": LATER}),
    (Node, {"revoked": True}),
    (Node, {"generation": 9}),
    (Node, {"observed_generation": 9}),
    (Node, {"period_s": 2.0}),
    (Node, {"agent_version": "2"}),
    (Node, {"engine_version": "2"}),
    (Node, {"driver": "2"}),
    (Node, {"simulated": True}),
    (Gpu, {"health": "lost"}),
    (Gpu, {"health": "degraded"}),
    (Gpu, {"health_detail": "xid 79"}),
    (Gpu, {"foreign": True}),
    (Gpu, {"present": False}),
    (Gpu, {"partition": None}),
    (Gpu, {"memory_bytes": 81 * 2**30}),
    (Gpu, {"index": 3}),
    (Partition, {"name": "longer"}),
    (Partition, {"generation": 9}),
    (Partition, {"phase": "starting"}),
    (Partition, {"phase": "draining"}),
    (Partition, {"phase_since": LATER}),
    (Partition, {"observed_generation": 9}),
    (Partition, {"role": "prefill"}),
    (Partition, {"restarts": 3}),
    (Partition, {"message": "out of memory"}),
    (Partition, {"endpoint": ""}),
    (Partition, {"verified_generation": 3}),
    (Partition, {"verify_failures": 1}),
    (Partition, {"failed_generation": 3, "verify_message": "refused"}),
    (Deployment, {"name": "renamed"}),
]


@pytest.fixture(autouse=True)
def _no_rereading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "REREAD", 10**9)


@pytest.mark.parametrize(("model", "columns"), CHANGES, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_change_reads_its_node_again_and_no_other(model: Any, columns: dict[str, Any]) -> None:
    partition = make_ready(make_partition(role="decode", gpus=2))
    make_ready(make_partition(role="decode"))
    held = Mirror()
    held.look()
    assert held.look() == set()
    rows = {Node: {"pk": partition.node_id}, Gpu: {"pk": partition.gpus.first().pk}, Partition: {"pk": partition.pk}}
    model.objects.filter(**rows.get(model, {"pk": partition.deployment_id})).update(**columns)
    read = held.look()
    assert read == ({partition.node_id} if model is not Deployment else set(held.nodes))
    assert held.look() == set()


def test_two_gpus_that_change_partitions_are_seen() -> None:
    node = make_node()
    one, two = make_partition(node), make_partition(node)
    held = Mirror()
    held.look()
    a, b = one.gpus.get(), two.gpus.get()
    Gpu.objects.filter(pk=a.pk).update(partition=two)
    Gpu.objects.filter(pk=b.pk).update(partition=one)
    assert held.look() == {node.pk}


def test_being_heard_reads_nothing_again_but_is_known() -> None:
    node = make_node()
    held = Mirror()
    held.look()
    Node.objects.update(last_seen=LATER, clock_skew_s=0.5)
    assert held.look() == set()
    assert (held.nodes[node.pk].last_seen, held.nodes[node.pk].clock_skew_s) == (LATER, 0.5)


def test_nodes_come_and_go_and_stay_in_the_order_of_their_names() -> None:
    b = make_node("b")
    held = Mirror()
    held.look()
    a, c = make_node("a"), make_node("c")
    make_gpu(a)
    assert held.look() == {a.pk, c.pk}
    b.delete()
    held.look()
    assert [node.name for node in held.nodes.values()] == ["a", "c"]


def test_each_node_is_read_again_now_and_then_whatever_the_sums_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "REREAD", 3)
    seconds = iter(range(1_800_000_000, 1_800_000_010))
    monkeypatch.setattr(mirror.time, "time", lambda: float(next(seconds)))
    gpu = make_gpu(make_node())
    held = Mirror()
    held.look()
    Gpu.objects.update(health_detail="")
    Gpu.objects.update(name="Simulated H200 80GB")  # as long as before
    read = [held.look() for _ in range(3)]
    assert sorted(map(len, read)) == [0, 0, 1]  # a look a second
    assert held.nodes[gpu.node_id].gpus.all()[0].name == "Simulated H200 80GB"


def test_shares_that_are_due_are_read_again_once_a_second_and_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "REREAD", 3)
    monkeypatch.setattr(mirror.time, "time", lambda: clock)
    clock = 1_800_000_000.0
    nodes = {make_node().pk for _ in range(3)}
    held = Mirror()
    held.look()
    assert held.look() == set()
    clock += 1
    assert (len(held.look()), len(held.look())) == (1, 0)
    clock += 7
    assert held.look() == nodes


def test_in_the_steady_state_a_thousand_rows_cost_four_queries(django_assert_num_queries: Any) -> None:
    deployment = make_deployment()
    for _ in range(20):
        make_ready(make_partition(role="decode", gpus=2, deployment=deployment))
    held = Mirror()
    held.look()
    with django_assert_num_queries(4):
        held.look()


def test_a_node_that_was_read_again_leaves_nothing_behind() -> None:
    node = make_node(gpus=2)
    make_partition(node)
    held = Mirror()
    held.look()
    before = weakref.ref(held.nodes[node.pk])
    gc.disable()
    try:
        Node.objects.filter(pk=node.pk).update(driver="another")
        assert node.pk in held.look()
        assert before() is None
        assert len(held.nodes[node.pk].gpus.all()) == node.gpus.count()
    finally:
        gc.enable()


@pytest.mark.django_db(transaction=True)
def test_where_nothing_was_committed_rows_are_not_asked_for_and_any_commit_is_seen(
    django_assert_num_queries: Any,
) -> None:
    node = make_node()
    held = Mirror()
    held.look()
    held.look()
    with django_assert_num_queries(1):
        assert held.look() == set()
    Node.objects.update(driver="another")  # by this connection
    assert held.look() == {node.pk}
    assert held.look() == set()
    elsewhere = threading.Thread(target=_rename, args=(node.pk,))
    elsewhere.start()
    elsewhere.join()
    assert held.look() == {node.pk}
    with transaction.atomic():
        Node.objects.update(driver="not committed yet")
        assert held.look() == {node.pk}
        transaction.set_rollback(True)
    assert held.look() == {node.pk}
    assert held.nodes[node.pk].driver == "another"


def _rename(pk: int) -> None:
    Node.objects.filter(pk=pk).update(name="by-another-connection")
    connection.close()
