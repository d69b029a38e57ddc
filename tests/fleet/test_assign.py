"""Which deployment runs where: assign, release, and what is refused."""

from __future__ import annotations

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.impact import DECODE_SETTLE_S
from controlplane.fleet import services
from controlplane.fleet.errors import Conflict, Invalid, NotFound, Refused
from controlplane.fleet.models import Node, Partition
from controlplane.fleet.publish import spec_of
from tests.factories import GIB, make_deployment, make_gpu, make_model, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


def codes(error: pytest.ExceptionInfo) -> list[str]:
    return [problem.code for problem in error.value.problems]


def test_assigning_writes_the_desired_columns_the_spec_and_the_trail(actor: Actor) -> None:
    partition, deployment = make_partition(), make_deployment("chat")

    assigned = services.assign(
        partition.pk, deployment_id=deployment.pk, role="decode", actor=actor, reason="more decode"
    )

    assert (assigned.deployment, assigned.role, assigned.generation) == (deployment, "decode", 1)
    [replica] = spec_of(Node.objects.get(pk=partition.node_id)).replicas
    assert (replica.partition, replica.deployment, replica.api_key) == (partition.pk, "chat", assigned.engine_key)
    event = AuditEvent.objects.get(verb="assign")
    assert (event.actor_name, event.source, event.reason) == ("olga", "web", "more decode")
    assert event.before == {"deployment": None, "role": None}
    assert event.after == {"deployment": "chat", "role": "decode"}


def test_the_engine_key_stays_with_a_flip_and_changes_with_the_deployment(actor: Actor) -> None:
    partition, first, second = make_partition(), make_deployment(), make_deployment()
    one = services.assign(partition.pk, deployment_id=first.pk, role="prefill", actor=actor).engine_key

    flipped = services.assign(partition.pk, deployment_id=first.pk, role="decode", actor=actor).engine_key
    other = services.assign(partition.pk, deployment_id=second.pk, role="decode", actor=actor).engine_key

    assert one and one == flipped
    assert other != one


def test_the_trail_holds_no_engine_key(actor: Actor) -> None:
    partition = make_partition()
    assigned = services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor)

    told = AuditEvent.objects.get(verb="assign")

    assert assigned.engine_key not in f"{told.before}{told.after}{told.detail}"


def test_assigning_what_is_assigned_changes_nothing(actor: Actor) -> None:
    partition, deployment = make_partition(), make_deployment()
    services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor)

    again = services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor)

    assert again.generation == 1
    assert AuditEvent.objects.filter(verb="assign").count() == 1


def test_a_change_that_the_operator_did_not_see_is_a_conflict_that_names_who_made_it(actor: Actor) -> None:
    partition, deployment = make_partition(), make_deployment("chat")
    services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor)

    with pytest.raises(Conflict, match=r"now chat as decode\. olga changed it last \(assign, "):
        services.assign(partition.pk, deployment_id=deployment.pk, role="prefill", actor=actor, expected_generation=0)

    partition.refresh_from_db()
    assert partition.role == "decode"


def test_a_release_is_fenced_alike(actor: Actor) -> None:
    partition = make_partition()
    services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor)

    with pytest.raises(Conflict):
        services.release(partition.pk, actor=actor, expected_generation=0)


def test_what_the_rules_refuse_changes_nothing(actor: Actor) -> None:
    node = make_node(schedulable=False)
    partition = make_partition(node)

    with pytest.raises(Refused) as error:
        services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor, force=True)

    assert codes(error) == ["node-cordoned"]
    partition.refresh_from_db()
    assert partition.deployment is None
    assert Node.objects.get(pk=node.pk).generation == 0
    assert not AuditEvent.objects.exists()


def test_a_silent_node_gets_nothing_new(actor: Actor) -> None:
    partition = make_partition(make_node(heard=False, last_seen=None))

    with pytest.raises(Refused) as error:
        services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor)

    assert codes(error) == ["node-never-seen"]


def test_force_overrides_what_is_forceable_and_the_trail_says_so(actor: Actor) -> None:
    node = make_node()
    small = make_gpu(node, memory_bytes=1 * GIB)
    partition = make_partition(node, gpus=[small])
    deployment = make_deployment()

    with pytest.raises(Refused) as error:
        services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor)
    assert codes(error) == ["memory"]
    assert error.value.forceable

    forced = services.assign(partition.pk, deployment_id=deployment.pk, role="decode", actor=actor, force=True)

    assert forced.deployment == deployment
    assert "Forced in spite of" in AuditEvent.objects.get(verb="assign").detail


def test_the_maximum_of_a_role_is_kept_unless_forced(actor: Actor) -> None:
    deployment = make_deployment(max_decode=1)
    node = make_node()
    first, second = make_partition(node), make_partition(node)
    services.assign(first.pk, deployment_id=deployment.pk, role="decode", actor=actor)

    with pytest.raises(Refused) as error:
        services.assign(second.pk, deployment_id=deployment.pk, role="decode", actor=actor)
    services.assign(second.pk, deployment_id=deployment.pk, role="decode", actor=actor, force=True)

    assert codes(error) == ["over-maximum"]


def test_a_role_that_does_not_exist_is_invalid(actor: Actor) -> None:
    with pytest.raises(Invalid):
        services.assign(make_partition().pk, deployment_id=make_deployment().pk, role="both", actor=actor)


@pytest.mark.parametrize("missing", ["partition", "deployment"])
def test_what_is_not_there_is_not_found(actor: Actor, missing: str) -> None:
    partition_id, deployment_id = make_partition().pk, make_deployment().pk
    if missing == "partition":
        partition_id = 999_999
    else:
        deployment_id = 999_999

    with pytest.raises(NotFound, match=f"no {missing} 999999"):
        services.assign(partition_id, deployment_id=deployment_id, role="decode", actor=actor)


def test_releasing_empties_the_partition_and_forgets_the_engine_key(actor: Actor) -> None:
    partition = make_partition()
    services.assign(partition.pk, deployment_id=make_deployment("chat").pk, role="decode", actor=actor)

    released = services.release(partition.pk, actor=actor, reason="not needed")

    assert (released.deployment, released.role, released.engine_key, released.generation) == (None, "", "", 2)
    assert AuditEvent.objects.get(verb="release").before == {"deployment": "chat", "role": "decode"}


def test_releasing_an_empty_partition_changes_nothing(actor: Actor) -> None:
    partition = make_partition()

    services.release(partition.pk, actor=actor)

    assert not AuditEvent.objects.exists()


class TestPreview:
    def test_a_ready_engine_is_relabelled_where_both_roles_have_the_same_content(self) -> None:
        partition = make_ready(make_partition(role="prefill"))

        preview = services.preview_assign(partition.pk, deployment_id=partition.deployment_id, role="decode")

        assert preview["action"] == "relabel"
        assert preview["problems"] == []
        assert preview["fit"]["fits"] is True

    def test_it_is_replaced_where_the_roles_differ_in_arguments(self) -> None:
        deployment = make_deployment(decode_args=["--max-num-seqs=4"])
        partition = make_ready(make_partition(deployment=deployment, role="prefill"))

        preview = services.preview_assign(partition.pk, deployment_id=deployment.pk, role="decode")

        assert preview["action"] == "replace"

    def test_it_is_replaced_where_another_model_comes(self) -> None:
        partition = make_ready(make_partition(role="prefill"))

        preview = services.preview_assign(partition.pk, deployment_id=make_deployment().pk, role="prefill")

        assert preview["action"] == "replace"

    def test_an_empty_partition_starts_one(self) -> None:
        preview = services.preview_assign(make_partition().pk, deployment_id=make_deployment().pk, role="decode")

        assert preview["action"] == "start"

    def test_it_says_how_long_a_start_takes_by_what_was_measured_of_the_deployment(self) -> None:
        deployment = make_deployment()
        for seconds in (20.0, 90.0, 30.0, None):
            make_ready(make_partition(deployment=deployment, role="decode"), ready_after_s=seconds)
        make_ready(make_partition(role="decode"), ready_after_s=500.0)  # of another one
        before = make_partition(deployment=deployment, role="decode", generation=2)  # not its own start yet
        make_ready(before, ready_after_s=700.0, observed_generation=1)

        preview = services.preview_assign(make_partition().pk, deployment_id=deployment.pk, role="decode")

        assert (preview["action"], preview["expected_s"]) == ("start", 30.0)

    def test_a_replacement_takes_the_drain_and_a_start(self) -> None:
        coming = make_deployment()
        make_ready(make_partition(deployment=coming, role="decode"), ready_after_s=20.0)
        partition = make_ready(make_partition(deployment=make_deployment(drain_s=60), role="decode"))

        preview = services.preview_assign(partition.pk, deployment_id=coming.pk, role="decode")

        assert (preview["action"], preview["expected_s"]) == ("replace", DECODE_SETTLE_S + 60.0 + 20.0)

    def test_an_engine_that_still_starts_is_replaced_without_a_drain(self) -> None:
        coming = make_deployment()
        make_ready(make_partition(deployment=coming, role="decode"), ready_after_s=20.0)
        partition = make_ready(make_partition(role="decode"), phase="starting")

        preview = services.preview_assign(partition.pk, deployment_id=coming.pk, role="decode")

        assert (preview["action"], preview["expected_s"]) == ("replace", 20.0)

    def test_a_relabel_takes_a_second(self) -> None:
        partition = make_ready(make_partition(role="prefill"))

        preview = services.preview_assign(partition.pk, deployment_id=partition.deployment_id, role="decode")

        assert preview["expected_s"] == 1.0

    def test_it_gives_no_time_where_none_was_measured(self) -> None:
        partition = make_ready(make_partition(role="prefill"))

        start = services.preview_assign(make_partition().pk, deployment_id=make_deployment().pk, role="decode")
        replace = services.preview_assign(partition.pk, deployment_id=make_deployment().pk, role="decode")
        same = services.preview_assign(partition.pk, deployment_id=partition.deployment_id, role="prefill")

        assert [preview["expected_s"] for preview in (start, replace, same)] == [None, None, None]

    def test_it_gives_no_time_where_the_drain_of_what_runs_is_not_known(self) -> None:
        """Released, and its engine still drains by the deadline that it was started with."""
        coming = make_deployment()
        make_ready(make_partition(deployment=coming, role="decode"), ready_after_s=20.0)
        partition = make_ready(make_partition(), phase="draining")

        preview = services.preview_assign(partition.pk, deployment_id=coming.pk, role="decode")

        assert (preview["action"], preview["expected_s"]) == ("replace", None)

    def test_it_says_what_the_present_deployment_would_lose(self) -> None:
        deployment = make_deployment(min_decode=1)
        partition = make_ready(make_partition(deployment=deployment, role="decode"))

        preview = services.preview_assign(partition.pk, deployment_id=deployment.pk, role="prefill")

        assert [warning["code"] for warning in preview["warnings"]] == ["under-minimum"]

    def test_it_lists_the_problems_that_assign_would_refuse(self) -> None:
        model = make_model(config={"num_attention_heads": 9, "num_key_value_heads": 3})
        partition = make_partition(gpus=2)

        preview = services.preview_assign(partition.pk, deployment_id=make_deployment(model=model).pk, role="decode")

        assert [problem["code"] for problem in preview["problems"]] == ["tp-does-not-divide-heads"]
        assert not preview["forceable"]

    def test_it_changes_nothing(self) -> None:
        partition = make_partition()

        services.preview_assign(partition.pk, deployment_id=make_deployment().pk, role="decode")

        assert Partition.objects.get(pk=partition.pk).deployment is None
        assert not AuditEvent.objects.exists()
