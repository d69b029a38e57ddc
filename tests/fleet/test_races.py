"""Two at once: the row decides, and exactly one wins."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import reports, services
from controlplane.fleet.errors import Conflict, JoinRefused, Refused
from controlplane.fleet.models import Deployment, JoinToken, Node, Partition, RegisteredModel
from controlplane.fleet.publish import spec_of
from controlplane.fleet.services.waking import Ask, State, wake
from tests.factories import make_deployment, make_model, make_node, make_partition
from tests.fleet.reporting import report_of
from workers.joining import JoinRequest

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], object]) -> list[object]:
    """What each call returned or raised, all of them let go at the same moment, each on a connection of its own."""
    gate, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number: int) -> None:
        try:
            gate.wait(10)
            results[number] = calls[number]()
        except Exception as error:
            results[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[number]) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_racing_assigns_exactly_one_wins(actor: Actor, attempt: int) -> None:
    partition, deployment = make_partition(), make_deployment("chat")

    results = at_once(
        *(
            lambda role=role: services.assign(
                partition.pk, deployment_id=deployment.pk, role=role, actor=actor, expected_generation=0
            )
            for role in ("prefill", "decode")
        )
    )

    won = [result for result in results if isinstance(result, Partition)]
    lost = [result for result in results if isinstance(result, Conflict)]
    assert (len(won), len(lost)) == (1, 1)
    partition.refresh_from_db()
    node = Node.objects.get(pk=partition.node_id)
    assert (partition.role, partition.generation, node.generation) == (won[0].role, 1, 1)
    assert [replica.role for replica in spec_of(node).replicas] == [won[0].role]
    assert AuditEvent.objects.filter(verb="assign").count() == 1


def test_racing_changes_of_one_node_each_get_a_generation_of_their_own(actor: Actor) -> None:
    node, deployment = make_node(), make_deployment()
    partitions = [make_partition(node) for _ in range(4)]

    results = at_once(
        *(
            lambda pk=partition.pk: services.assign(pk, deployment_id=deployment.pk, role="decode", actor=actor)
            for partition in partitions
        )
    )

    assert sorted(result.generation for result in results) == [1, 2, 3, 4]
    assert len(spec_of(Node.objects.get(pk=node.pk)).replicas) == 4


def test_the_maximum_of_a_role_is_kept_by_racing_assigns_on_two_nodes(actor: Actor) -> None:
    deployment = make_deployment(max_decode=1)
    partitions = [make_partition(), make_partition()]

    results = at_once(
        *(
            lambda pk=partition.pk: services.assign(pk, deployment_id=deployment.pk, role="decode", actor=actor)
            for partition in partitions
        )
    )

    assert sorted(type(result).__name__ for result in results) == ["Partition", "Refused"]


def test_a_change_of_a_deployment_misses_no_racing_assignment(actor: Actor) -> None:
    deployment, partition = make_deployment(), make_partition()
    args = ["--max-model-len=512"]

    results = at_once(
        lambda: services.update_deployment(deployment.pk, engine_args=args, actor=actor),
        lambda: services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor),
    )

    assert not [result for result in results if isinstance(result, Exception)]
    assert spec_of(Node.objects.get(pk=partition.node_id)).replicas[0].args == tuple(args)


def test_a_token_is_used_once_however_many_come_with_it(actor: Actor) -> None:
    _, plain = services.issue_join_token(actor=actor)

    def join(name: str) -> object:
        request = JoinRequest(token=plain, name=name, address="127.0.0.1", instance=name, agent_version="0", at=0.0)
        return services.join(request, address_seen="127.0.0.1")

    results = at_once(*(lambda name=name: join(name) for name in ("a", "b", "c")))

    refused = [result for result in results if isinstance(result, JoinRefused)]
    assert [refusal.code for refusal in refused] == ["join-token-used"] * 2
    assert Node.objects.count() == 1
    assert JoinToken.objects.get().used_by == Node.objects.get()


def test_two_hosts_that_want_one_name_get_it_once(actor: Actor) -> None:
    tokens = [services.issue_join_token(actor=actor)[1] for _ in range(2)]

    def join(token: str) -> object:
        request = JoinRequest(
            token=token, name="a", address="127.0.0.1", instance=token[:20], agent_version="0", at=0.0
        )
        return services.join(request, address_seen="127.0.0.1")

    results = at_once(*(lambda token=token: join(token) for token in tokens))

    assert [result.code for result in results if isinstance(result, JoinRefused)] == ["node-exists"]
    assert Node.objects.count() == 1


def one_won_and_the_others_were_refused(results: list[object], code: str) -> bool:
    refusals = [result for result in results if isinstance(result, Refused)]
    assert [problem.code for refusal in refusals for problem in refusal.problems] == [code] * (len(results) - 1)
    return len([result for result in results if not isinstance(result, Exception)]) == 1


def test_a_model_name_is_taken_once_however_many_want_it(actor: Actor) -> None:
    results = at_once(*[lambda: services.register_model(name="m", source="some/model", actor=actor)] * 4)

    assert one_won_and_the_others_were_refused(results, "model-exists")
    assert RegisteredModel.objects.count() == AuditEvent.objects.count() == 1


def test_a_deployment_name_is_taken_once_however_many_want_it(actor: Actor) -> None:
    model = make_model()
    results = at_once(*[lambda: services.create_deployment(name="chat", model_id=model.pk, actor=actor)] * 4)

    assert one_won_and_the_others_were_refused(results, "served-name-taken")
    assert Deployment.objects.count() == AuditEvent.objects.count() == 1


def test_a_partition_name_is_taken_once_however_many_want_it(actor: Actor) -> None:
    node = make_node(gpus=4)
    results = at_once(
        *(
            lambda index=index: services.create_partition(node.pk, name="front", gpu_indices=[index], actor=actor)
            for index in range(4)
        )
    )

    assert one_won_and_the_others_were_refused(results, "partition-exists")
    assert Partition.objects.count() == AuditEvent.objects.count() == 1


def test_a_model_name_that_was_taken_after_the_look_is_refused(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.models, "_require_free", lambda name: None)
    make_model("m")

    with pytest.raises(Refused, match="a model m already"):
        services.register_model(name="m", source="some/model", actor=actor)


def test_a_deployment_name_that_was_taken_after_the_look_is_refused(
    actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.deployments, "_taken_names", lambda deployment: [])
    make_deployment("chat")
    other = make_deployment("other")

    with pytest.raises(Refused, match="chat is served"):
        services.create_deployment(name="chat", model_id=other.model_id, actor=actor)
    with pytest.raises(Refused, match="chat is served"):
        services.update_deployment(other.pk, name="chat", actor=actor)


def test_an_operator_and_a_report_never_undo_each_other(actor: Actor) -> None:
    partition = make_partition()
    deployment = make_deployment()
    node = partition.node
    said = [report_of(node, seq=1000 + number, driver=f"driver {number}") for number in range(8)]

    def report_all() -> None:
        for one in said:
            reports.receive(one, node=Node.objects.get(pk=node.pk), now=timezone.now())

    def flip() -> None:
        for role in ("prefill", "decode") * 4:
            services.assign(partition.pk, deployment_id=deployment.pk, role=role, actor=actor)

    assert at_once(report_all, flip) == [None, None]

    node.refresh_from_db()
    partition.refresh_from_db()
    assert (node.driver, partition.role) == ("driver 7", "decode")
    assert spec_of(node).replicas[0].role == "decode"
    assert node.generation == partition.generation >= 8


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_pairs_that_race_for_three_slots_on_two_nodes_one_has_two_and_the_other_none(attempt: int) -> None:
    for name in ("n1", "n2"):
        node = make_node(name)
        for _ in range(1 if name == "n1" else 2):
            make_partition(node, pool=True)
    for name in ("a", "b"):
        make_deployment(name, mode="pooled", pool_shape="pair")

    results = at_once(*(lambda name=name: wake({name: Ask()})[name].state for name in ("a", "b", "a", "b")))

    assert set(results) == {State.STARTING, State.WAITING}, results
    held = sorted(Partition.objects.exclude(deployment=None).values_list("deployment__name", "role"))
    assert held in ([("a", "decode"), ("a", "prefill")], [("b", "decode"), ("b", "prefill")])
    assert AuditEvent.objects.filter(verb="assign").count() == 2
