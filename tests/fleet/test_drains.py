"""Draining a node as a plan: previewed, with other places for its engines first, and undone."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain.impact import Live, Load
from controlplane.domain.rollout import Move
from controlplane.fleet import services, versions
from controlplane.fleet.errors import Conflict, Invalid, NotFound, Refused
from controlplane.fleet.models import Change, Node, Partition
from tests.factories import make_deployment, make_node, make_partition, make_ready
from tests.fleet.reporting import status_of, tell
from workers.contract import Role

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet(db: None) -> SimpleNamespace:
    """A pair on one node, which nothing else serves; another node with two free partitions."""
    old, new = make_node("old"), make_node("new")
    deployment = make_deployment("chat", drain_s=90)
    pair = [
        make_ready(make_partition(old, deployment=deployment, role=role, generation=1))
        for role in ("prefill", "decode")
    ]
    free = [make_partition(new), make_partition(new)]
    return SimpleNamespace(old=old, new=new, deployment=deployment, pair=pair, free=free)


def confirm(node: Node) -> None:
    """All that is assigned there is ready, and the node says so."""
    node.refresh_from_db()
    replicas = [
        status_of(row, "ready") for row in node.partitions.select_related("deployment").exclude(deployment=None)
    ]
    tell(node, replicas=tuple(replicas), generation=node.generation)


def codes(error: Any) -> list[str]:
    return [problem.code for problem in error.value.problems]


def test_a_preview_names_each_engine_its_requests_and_its_new_place(fleet: SimpleNamespace) -> None:
    live = Live(partitions={fleet.pair[1].pk: Load(running=3.0, waiting=1.0)})

    seen = services.preview_drain(fleet.old.pk, move=True, deadline_s=600, live=live)

    assert [(row["partition"]["name"], row["to"]["name"], row["in_flight"]) for row in seen["leaving"]] == [
        ("old/p0", "new/p0", None),
        ("old/p1", "new/p1", 4.0),
    ]
    assert (seen["problems"], seen["warnings"], seen["deadline_s"]) == ([], [], 600)
    assert {(e["role"], e["engines_before"], e["engines_after"]) for e in seen["effects"]} == {
        ("prefill", 1, 1),
        ("decode", 1, 1),
    }
    assert not Change.objects.exists()


def test_where_there_is_no_room_the_preview_says_so_and_what_is_lost(fleet: SimpleNamespace) -> None:
    Partition.objects.filter(pk=fleet.free[1].pk).delete()

    seen = services.preview_drain(fleet.old.pk, move=True)

    assert [row["to"] and row["to"]["name"] for row in seen["leaving"]] == ["new/p0", None]
    assert [problem["code"] for problem in seen["problems"]] == ["no-room", "would-stop-serving"]
    assert seen["forceable"]
    assert "last-replica" in [problem["code"] for problem in seen["warnings"]]


def test_a_plain_drain_is_never_refused_but_warns(fleet: SimpleNamespace) -> None:
    seen = services.preview_drain(fleet.old.pk)

    assert (seen["problems"], seen["moves"], seen["steps"]) == ([], [], [])
    assert {problem["code"] for problem in seen["warnings"]} == {"would-stop-serving", "last-replica"}
    assert [(row["to"], row["problem"], row["drain_s"]) for row in seen["leaving"]] == [(None, None, 90.0)] * 2


def test_the_node_is_drained_once_its_engines_are_ready_elsewhere(fleet: SimpleNamespace, actor: Actor) -> None:
    seen = services.preview_drain(fleet.old.pk, move=True)

    change = services.drain_with_moves(
        fleet.old.pk, version=seen["version"], actor=actor, reason="new fan", deadline_s=30
    )

    for _ in range(3):
        fleet.old.refresh_from_db()
        assert not fleet.old.draining
        confirm(fleet.new)
        services.advance(change.pk)
        change.refresh_from_db()
        if change.state == "done":
            break
    fleet.old.refresh_from_db()
    assert (change.kind, change.state, fleet.old.draining, fleet.old.spec["drain_s"]) == ("drain", "done", True, 30)
    assert sorted(Partition.objects.filter(node=fleet.new).values_list("role", flat=True)) == ["decode", "prefill"]
    assert set(Partition.objects.filter(node=fleet.old).values_list("role", flat=True)) == {"prefill", "decode"}


def test_its_undo_cancels_the_drain_and_releases_the_other_places(fleet: SimpleNamespace, actor: Actor) -> None:
    change = services.drain_with_moves(fleet.old.pk, actor=actor)
    for _ in range(3):
        confirm(fleet.new)
        services.advance(change.pk)

    undo = services.apply_change(
        services.inverse_moves(change.pk), version=versions.current(), actor=actor, kind="undo", undoes=change.pk
    )
    fleet.old.refresh_from_db()
    assert (fleet.old.draining, fleet.old.schedulable) == (False, True)
    for _ in range(6):
        confirm(fleet.old)
        confirm(fleet.new)
        services.advance(undo.pk)
    undo.refresh_from_db()
    assert undo.state == "done"
    assert not Partition.objects.filter(node=fleet.new, deployment__isnull=False).exists()


def test_without_room_it_is_refused_and_with_force_the_rest_moves(fleet: SimpleNamespace, actor: Actor) -> None:
    fleet.free[1].delete()

    with pytest.raises(Refused) as error:
        services.drain_with_moves(fleet.old.pk, actor=actor)
    assert codes(error) == ["no-room"]
    assert not Change.objects.exists()

    change = services.drain_with_moves(fleet.old.pk, actor=actor, force=True)
    assert len(change.moves) == 1


def test_a_pooled_model_moves_to_another_slot_and_where_there_is_none_it_is_no_obstacle(
    fleet: SimpleNamespace, actor: Actor
) -> None:
    pooled = make_deployment("sporadic", mode="pooled")
    slot = make_ready(make_partition(fleet.old, deployment=pooled, role="aggregated", generation=1, pool=True))

    seen = services.preview_drain(fleet.old.pk, move=True)
    row = next(one for one in seen["leaving"] if one["partition"]["id"] == slot.pk)
    assert (row["to"], row["problem"], seen["problems"]) == (None, None, [])
    assert "woken-again" in [warning["code"] for warning in seen["warnings"]]

    other = make_partition(fleet.new, pool=True)
    seen = services.preview_drain(fleet.old.pk, move=True)
    found = {one["partition"]["id"]: one["to"]["id"] for one in seen["leaving"]}
    assert found.pop(slot.pk) == other.pk
    assert sorted(found.values()) == sorted(row.pk for row in fleet.free), "and nobody else takes the pool's slot"


@pytest.mark.parametrize("columns", [{}, {"mode": "pooled", "pinned": True}])
def test_what_the_pool_did_not_put_into_a_slot_is_an_obstacle_as_ever(
    fleet: SimpleNamespace, columns: dict[str, object]
) -> None:
    pinned = bool(columns.pop("pinned", False))
    there = make_deployment("own", **columns)
    row = make_partition(fleet.old, deployment=there, role="aggregated", generation=1, pool=True, pinned=pinned)
    make_ready(row)
    Partition.objects.filter(pk__in=[one.pk for one in fleet.free]).delete()
    seen = services.preview_drain(fleet.old.pk, move=True)
    assert next(one for one in seen["leaving"] if one["partition"]["id"] == row.pk)["problem"] is not None


def test_with_nothing_to_move_it_drains_at_once(actor: Actor) -> None:
    node = make_node()

    assert services.drain_with_moves(node.pk, actor=actor, deadline_s=5) is None
    node.refresh_from_db()
    assert node.draining


def test_a_full_deployment_may_still_move(fleet: SimpleNamespace, actor: Actor) -> None:
    """Its maximum holds for what serves in the end."""
    type(fleet.deployment).objects.update(max_prefill=1, max_decode=1)

    assert services.preview_drain(fleet.old.pk, move=True)["problems"] == []
    assert services.drain_with_moves(fleet.old.pk, actor=actor).state == "running"


def test_a_place_that_another_change_is_about_to_fill_is_not_free(fleet: SimpleNamespace, actor: Actor) -> None:
    first = services.drain_with_moves(fleet.old.pk, actor=actor)
    other = make_node("other")
    make_ready(make_partition(other, deployment=fleet.deployment, role="decode", generation=1))

    seen = services.preview_drain(other.pk, move=True)

    assert [step["state"] for step in first.steps] == ["running", "waiting"]
    assert [problem["code"] for problem in seen["problems"]] == ["no-room"]


def test_what_an_open_change_moves_is_not_drained_elsewhere(fleet: SimpleNamespace, actor: Actor) -> None:
    move = Move(fleet.pair[0].pk, fleet.deployment.pk, Role.DECODE)
    services.apply_change([move], version=versions.current(), actor=actor, force=True)

    with pytest.raises(Conflict, match="is part of change"):
        services.drain_with_moves(fleet.old.pk, actor=actor, force=True)


def test_an_older_version_is_stale_where_the_node_was_changed(fleet: SimpleNamespace, actor: Actor) -> None:
    version = services.preview_drain(fleet.old.pk, move=True)["version"]
    services.cordon(fleet.old.pk, actor=Actor(name="pete", source="rest"))

    with pytest.raises(services.Stale, match="pete was faster"):
        services.drain_with_moves(fleet.old.pk, version=version, actor=actor)


def test_while_the_brake_is_on_nothing_is_moved_elsewhere(fleet: SimpleNamespace, actor: Actor) -> None:
    for _ in range(2):
        make_node(last_seen=timezone.now() - timedelta(seconds=30))

    with pytest.raises(Refused) as error:
        services.drain_with_moves(fleet.old.pk, actor=actor, force=True)
    assert codes(error) == ["brake"]
    assert services.drain(fleet.old.pk, actor=actor).draining, "without moving, a person may"


def test_a_draining_or_revoked_node_is_not_moved(fleet: SimpleNamespace, actor: Actor) -> None:
    services.drain(fleet.old.pk, actor=actor)
    with pytest.raises(Refused) as error:
        services.drain_with_moves(fleet.old.pk, actor=actor, force=True)
    assert codes(error) == ["node-draining"]


def test_bad_input_is_told(fleet: SimpleNamespace, actor: Actor) -> None:
    with pytest.raises(Invalid, match="deadline"):
        services.drain_with_moves(fleet.old.pk, actor=actor, deadline_s=-1)
    with pytest.raises(NotFound):
        services.preview_drain(10**6)
