"""Several moves as one change: previewed, applied step by step, stopped, resumed, rolled back and undone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.impact import Live, Load
from controlplane.domain.rollout import Move
from controlplane.fleet import change_facts, services, versions
from controlplane.fleet.errors import Conflict, Invalid, NotFound, Refused
from controlplane.fleet.models import Change, Deployment, Node, Partition
from controlplane.fleet.services import advancing
from tests.factories import make_deployment, make_node, make_partition, make_ready
from tests.fleet.reporting import status_of, tell
from workers.contract import Role

pytestmark = pytest.mark.django_db
P, D = Role.PREFILL, Role.DECODE
OTHER = Actor(name="pete", source="rest")


@pytest.fixture
def fleet() -> tuple[Deployment, list[Partition]]:
    """One deployment with two prefill and two decode engines on one node, all ready."""
    node, deployment = make_node("sim-a"), make_deployment("chat")
    roles = ["prefill", "prefill", "decode", "decode"]
    return deployment, [
        make_ready(make_partition(node, deployment=deployment, role=role, generation=1)) for role in roles
    ]


def apply(moves: list[Move], actor: Actor, **more: Any) -> Change:
    return services.apply_change(moves, version=more.pop("version", versions.current()), actor=actor, **more)


def confirm(partition: Partition) -> None:
    """The node reports that the engine is as desired now."""
    partition.refresh_from_db()
    node = Node.objects.get(pk=partition.node_id)
    rows = list(node.partitions.select_related("deployment").exclude(deployment=None))
    replicas = [status_of(row, "ready") if row.pk == partition.pk else _as_is(row) for row in rows]
    tell(node, replicas=tuple(replicas), generation=node.generation)


def _as_is(row: Partition) -> Any:
    return status_of(row, row.phase or "exited", generation=row.observed_generation, role=row.observed_role or row.role)


def lanes(partitions: list[Partition]) -> list[str]:
    return [Partition.objects.get(pk=partition.pk).role for partition in partitions]


def codes(error: pytest.ExceptionInfo) -> list[str]:
    return [problem.code for problem in error.value.problems]


def test_a_preview_tells_everything_and_changes_nothing(fleet: Any) -> None:
    deployment, parts = fleet
    live = Live(partitions={parts[2].pk: Load(running=3.0, waiting=1.0), parts[3].pk: Load(running=2.0)})

    seen = services.preview_change([Move(parts[2].pk, deployment.pk, P)], live=live)

    [move] = seen["moves"]
    assert (move["action"], move["in_flight"], move["expected_s"]) == ("relabel", 4.0, 1.0)
    assert move["before"] == {"deployment": {"id": deployment.pk, "name": "chat"}, "role": "decode"}
    decode = next(effect for effect in seen["effects"] if effect["role"] == "decode")
    assert (decode["engines_before"], decode["engines_after"], decode["in_flight"]) == (2, 1, 6.0)
    assert (decode["per_engine_before"], decode["per_engine_after"]) == (3.0, 6.0)
    assert [step["action"] for step in seen["steps"]] == ["relabel"]
    assert (seen["problems"], seen["warnings"], seen["expected_s"]) == ([], [], 1.0)
    assert lanes(parts) == ["prefill", "prefill", "decode", "decode"]
    assert not Change.objects.exists()


def test_steps_are_taken_one_at_a_time_each_after_the_last_is_confirmed(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    change = apply([Move(parts[0].pk, deployment.pk, D), Move(parts[2].pk, deployment.pk, P)], actor, reason="swap")
    assert lanes(parts) == ["decode", "prefill", "decode", "decode"], "the first step is taken at once"

    confirm(parts[0])
    assert lanes(parts) == ["decode", "prefill", "prefill", "decode"], "the report that confirms it takes the next"
    assert Change.objects.get().state == "running"

    confirm(parts[2])
    change.refresh_from_db()
    assert (change.state, [step["state"] for step in change.steps]) == ("done", ["done", "done"])
    verbs = list(AuditEvent.objects.exclude(source="agent").order_by("id").values_list("verb", flat=True))
    assert verbs == ["change", "assign", "assign", "done"]
    assert set(AuditEvent.objects.filter(verb="assign").values_list("reason", "actor_name")) == {("swap", "olga")}


def test_the_answer_to_the_confirming_report_carries_the_next_step(fleet: Any, actor: Actor) -> None:
    """With the broker dead nothing else would, before the next report."""
    deployment, parts = fleet
    apply([Move(parts[0].pk, deployment.pk, D), Move(parts[2].pk, deployment.pk, P)], actor)
    node = Node.objects.get()
    parts[0].refresh_from_db()
    rows = [status_of(parts[0], "ready"), *(_as_is(part) for part in parts[1:])]
    reply = tell(node, replicas=tuple(rows), generation=node.generation)
    assert reply.spec is not None
    assert {r.partition: r.role for r in reply.spec.replicas}[parts[2].pk] == "prefill"


def test_the_last_engine_that_answers_is_taken_by_force_only(actor: Actor) -> None:
    deployment = make_deployment("chat")
    part = make_ready(make_partition(deployment=deployment, role="decode", generation=1))
    with pytest.raises(Refused) as refused:
        apply([Move(part.pk, None, None)], actor)
    assert codes(refused) == ["would-stop-serving"]
    assert not Change.objects.exists()

    assert apply([Move(part.pk, None, None)], actor, force=True).state == "running"


def test_a_plan_on_an_older_fleet_is_stale_and_says_who_was_faster(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    version = services.preview_change([Move(parts[2].pk, deployment.pk, P)])["version"]
    services.assign(parts[3].pk, deployment_id=deployment.pk, role="prefill", actor=OTHER, reason="mine")

    with pytest.raises(services.Stale, match="pete was faster: assign sim-a/p3") as stale:
        apply([Move(parts[2].pk, deployment.pk, P)], actor, version=version)

    assert (stale.value.code, stale.value.status) == ("stale-plan", 409)
    assert [event.actor_name for event in stale.value.events] == ["pete"]
    assert lanes(parts)[2] == "decode"


def test_what_somebody_does_elsewhere_makes_no_plan_stale(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    version = versions.current()
    services.assign(make_partition().pk, deployment_id=make_deployment().pk, role="decode", actor=OTHER)
    assert apply([Move(parts[2].pk, deployment.pk, P)], actor, version=version).pk


def test_a_partition_of_an_open_change_is_nobody_elses(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    change = apply([Move(parts[0].pk, deployment.pk, D), Move(parts[2].pk, deployment.pk, P)], actor)
    with pytest.raises(Conflict, match=f"part of change {change.pk} by olga"):
        services.assign(parts[2].pk, deployment_id=deployment.pk, role="prefill", actor=OTHER)
    with pytest.raises(Conflict, match=f"part of change {change.pk} by olga"):
        services.release(parts[0].pk, actor=OTHER)
    with pytest.raises(Conflict, match=f"part of change {change.pk} by olga"):
        apply([Move(parts[2].pk, None, None)], OTHER)


def crash(part: Partition) -> None:
    part.refresh_from_db()
    node = Node.objects.get(pk=part.node_id)
    rows = list(node.partitions.select_related("deployment").exclude(deployment=None))
    dead = status_of(part, "exited", restarts=part.restarts + 3, message="out of memory")
    tell(node, replicas=tuple(dead if row.pk == part.pk else _as_is(row) for row in rows), generation=node.generation)


@pytest.fixture
def stopped(fleet: Any, actor: Actor) -> tuple[Change, list[Partition]]:
    """A change of two moves whose second failed: a new deployment's engine crash-loops."""
    deployment, parts = fleet
    coming = make_deployment("code", model=deployment.model)
    change = apply([Move(parts[0].pk, deployment.pk, D), Move(parts[2].pk, coming.pk, D)], actor)
    confirm(parts[0])
    crash(parts[2])
    change.refresh_from_db()
    return change, parts


def test_a_step_that_fails_stops_the_change_and_says_where_it_stands(stopped: Any) -> None:
    change, _ = stopped
    assert change.state == "stopped"
    assert "failed 3 times in a row: out of memory" in change.message
    seen = change_facts.facts(change, timezone.now())
    assert [step["state"] for step in seen["steps"]] == ["done", "failed"]
    assert (seen["steps_done"], seen["undoable"]) == (1, False)
    assert AuditEvent.objects.filter(verb="stopped", subject_type="change").exists()


def test_a_stopped_change_is_resumed(stopped: Any, actor: Actor) -> None:
    change, parts = stopped
    services.resume_change(change.pk, actor=actor, reason="more memory now")
    assert Change.objects.get().state == "running", "its restarts count anew"
    confirm(parts[2])
    assert Change.objects.get().state == "done"


def test_a_stopped_change_is_rolled_back_to_what_was_before(stopped: Any, actor: Actor) -> None:
    change, parts = stopped
    services.roll_back_change(change.pk, actor=actor, reason="no use")
    for _ in range(2):
        running = next(step for step in Change.objects.get().steps if step["state"] == "running")
        confirm(Partition.objects.get(pk=running["partition"]))
    change.refresh_from_db()
    assert change.state == "rolled_back"
    assert lanes(parts) == ["prefill", "prefill", "decode", "decode"]
    assert set(Partition.objects.values_list("deployment__name", flat=True)) == {"chat"}


def test_only_a_stopped_change_is_resumed_and_only_an_open_one_rolled_back(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    change = apply([Move(parts[2].pk, deployment.pk, P)], actor)
    with pytest.raises(Refused, match="is running"):
        services.resume_change(change.pk, actor=actor)
    confirm(parts[2])
    with pytest.raises(Refused, match="is done already"):
        services.roll_back_change(change.pk, actor=actor)
    with pytest.raises(NotFound):
        services.resume_change(4711, actor=actor)


def test_undo_is_the_inverse_change_once(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    change = apply([Move(parts[2].pk, deployment.pk, P)], actor)
    with pytest.raises(Refused, match="is running"):
        services.inverse_moves(change.pk)
    confirm(parts[2])

    moves = services.inverse_moves(change.pk)
    assert moves == [Move(parts[2].pk, deployment.pk, D)]
    undo = apply(moves, actor, kind="undo", undoes=change.pk)
    confirm(parts[2])

    assert lanes(parts) == ["prefill", "prefill", "decode", "decode"]
    change = Change.objects.get(pk=change.pk)
    assert change_facts.facts(change, timezone.now())["undone_by"] == undo.pk
    with pytest.raises(Refused, match=f"undone by change {undo.pk}"):
        services.inverse_moves(change.pk)
    with pytest.raises(Conflict):
        apply([Move(parts[2].pk, deployment.pk, P)], actor, kind="undo", undoes=change.pk)


def test_what_somebody_changed_since_is_not_undone_over_their_head(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    change = apply([Move(parts[2].pk, deployment.pk, P)], actor)
    confirm(parts[2])
    services.release(parts[2].pk, actor=OTHER)
    with pytest.raises(Conflict, match="pete changed it last"):
        services.inverse_moves(change.pk)


def test_where_a_step_would_leave_nothing_that_serves_the_change_waits_then_asks(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    change = apply([Move(parts[0].pk, deployment.pk, D), Move(parts[2].pk, deployment.pk, P)], actor)
    Partition.objects.filter(pk=parts[3].pk).update(phase="draining")
    parts[0].refresh_from_db()
    Partition.objects.filter(pk=parts[0].pk).update(phase="stopping", observed_generation=parts[0].generation)
    Change.objects.update(
        steps=[{**step, "state": "done"} if step["state"] == "running" else step for step in change.steps]
    )

    services.advance(change.pk)
    change.refresh_from_db()
    assert (change.state, lanes(parts)[2]) == ("running", "decode")
    assert "would leave nothing that serves" in change.message

    Change.objects.update(held_since=timezone.now() - timedelta(seconds=advancing.HOLD_S + 1))
    services.advance(change.pk)
    assert Change.objects.get().state == "stopped"


def test_a_silent_node_stops_the_change_on_it(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    change = apply([Move(parts[2].pk, deployment.pk, P)], actor)
    Node.objects.update(last_seen=timezone.now() - timedelta(minutes=2))
    services.advance(change.pk)
    change.refresh_from_db()
    assert (change.state, "silent" in change.message) == ("stopped", True)


@pytest.mark.parametrize(
    ("moves", "code"),
    [
        ([], "moves"),
        ([Move(1, None, None), Move(1, None, None)], "moved-twice"),
        ([Move(1, 1, None)], "half-a-move"),
    ],
)
def test_moves_that_make_no_sense_are_invalid(moves: list[Move], code: str, actor: Actor) -> None:
    with pytest.raises(Invalid) as invalid:
        apply(moves, actor)
    assert codes(invalid) == [code]


def test_moves_that_change_nothing_are_told(fleet: Any, actor: Actor) -> None:
    deployment, parts = fleet
    with pytest.raises(Invalid) as invalid:
        apply([Move(parts[2].pk, deployment.pk, D)], actor)
    assert codes(invalid) == ["no-moves"]


def test_a_shift_takes_ready_engines_with_the_fewest_requests(fleet: Any) -> None:
    deployment, parts = fleet
    live = Live(partitions={parts[2].pk: Load(running=5.0), parts[3].pk: Load(running=1.0)})
    shift = services.Shift(deployment.pk, D, P, gpus=1)
    assert services.choose_moves([shift], live=live) == [Move(parts[3].pk, deployment.pk, P)]
    both = services.choose_moves([services.Shift(deployment.pk, D, P, gpus=2)])
    assert {move.partition for move in both} == {parts[2].pk, parts[3].pk}
    with pytest.raises(Refused, match="has 2 GPUs in decode, and no partitions of it with exactly 3"):
        services.choose_moves([services.Shift(deployment.pk, D, P, gpus=3)])


def test_a_convertible_deployment_takes_no_arguments_of_one_role(actor: Actor) -> None:
    deployment = make_deployment()
    with pytest.raises(Invalid) as invalid:
        services.update_deployment(deployment.pk, actor=actor, convertible=True, prefill_args=["--max-num-seqs", "8"])
    assert codes(invalid) == ["convertible-args"]
    assert services.update_deployment(deployment.pk, actor=actor, convertible=True).convertible


def test_an_aggregated_engine_of_a_convertible_deployment_is_relabelled(actor: Actor) -> None:
    deployment = make_deployment(convertible=True)
    part = make_partition(deployment=deployment, role="aggregated", generation=1)
    make_partition(part.node, deployment=deployment, role="aggregated", generation=1)
    make_ready(part)
    seen = services.preview_change([Move(part.pk, deployment.pk, D)])
    assert seen["moves"][0]["action"] == "relabel"


def test_decode_engines_that_cannot_outlive_a_prefill_engine_start_again_at_the_end(fleet: Any, actor: Actor) -> None:
    """Engine 0.25.1 is known to crash at its first transfer from a restarted prefill engine: domain.recycling."""
    _, parts = fleet
    Partition.objects.update(engine_version="0.25.1")
    moves = [Move(parts[0].pk, None, None)]
    seen = services.preview_change(moves)
    assert [row["partition"]["id"] for row in seen["recycles"]] == [parts[2].pk, parts[3].pk]
    assert [step["action"] for step in seen["steps"]] == ["stop", "recycle", "recycle"]

    keys = dict(Partition.objects.values_list("pk", "engine_key"))
    change = apply(moves, actor)
    with pytest.raises(Conflict, match="sim-a/p2 is part of change"):
        services.release(parts[2].pk, actor=OTHER)
    confirm(parts[1])  # the report without the released engine
    assert Partition.objects.get(pk=parts[2].pk).engine_key != keys[parts[2].pk], "another key is another engine"
    assert Partition.objects.get(pk=parts[3].pk).engine_key == keys[parts[3].pk], "one after the other"
    confirm(parts[2])
    assert Partition.objects.get(pk=parts[3].pk).engine_key != keys[parts[3].pk]
    confirm(parts[3])
    change.refresh_from_db()
    assert change.state == "done"
    assert AuditEvent.objects.filter(verb="recycle").count() == 2


def test_a_role_is_not_left_empty_while_another_engine_for_it_is_starting(fleet: Any, actor: Actor) -> None:
    """As when a drain is undone: the engines that came for it stay until the node's own are back."""
    _, parts = fleet
    Partition.objects.filter(pk=parts[1].pk).update(phase="starting")
    change = apply([Move(parts[0].pk, None, None)], actor)
    change.refresh_from_db()
    assert (change.state, lanes(parts)[0]) == ("running", "prefill")
    assert "Not serving: sim-a/p1" in change.message
    Change.objects.update(held_since=timezone.now() - timedelta(seconds=advancing.HOLD_S + 1))
    services.advance(change.pk)
    assert Change.objects.get().state == "running", "an engine's start may take minutes"

    confirm(parts[1])
    assert lanes(parts)[0] == "", "and then it goes"
