"""Slots of the pool that a change takes out or sets aside: undone and led back with its moves."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.rollout import Move
from controlplane.fleet import services, versions
from controlplane.fleet.errors import Conflict, NotFound, Refused
from controlplane.fleet.models import Change, Node, Partition
from controlplane.fleet.owners import NotOwner
from tests.factories import make_deployment, make_node, make_partition, make_ready
from tests.fleet.test_changes import confirm
from workers.contract import Role

pytestmark = pytest.mark.django_db


class World:
    """One prefill and one decode engine, an empty slot of the pool and a free partition, on one node."""

    def __init__(self) -> None:
        self.node, self.chat = make_node("sim-a"), make_deployment("chat")
        for role in ("prefill", "decode"):
            make_ready(make_partition(self.node, deployment=self.chat, role=role, generation=1))
        self.slot, self.free = make_partition(self.node, pool=True), make_partition(self.node)

    def take(self, actor: Actor, pool: dict[int, bool] | None = None, **more: Any) -> Change:
        """The slot for decode, and with it what `pool` says."""
        wanted = {self.slot.pk: False} if pool is None else pool
        moves = [Move(self.slot.pk, self.chat.pk, Role.DECODE)]
        return services.apply_change(moves, version=versions.current(), actor=actor, pool=wanted, reason="more", **more)

    def slots(self) -> set[int]:
        return set(Partition.objects.filter(pool=True).values_list("pk", flat=True))


def undo(change: Change, actor: Actor, **more: Any) -> Change:
    moves, version = services.inverse_moves(change.pk), more.pop("version", versions.current())
    return services.apply_change(moves, version=version, actor=actor, reason="back", kind="undo", undoes=change.pk)


def empty(world: World) -> None:
    """The node reports that the slot's engine has ended."""
    Partition.objects.filter(pk=world.slot.pk).update(phase="")
    for change in Change.objects.filter(state=Change.State.RUNNING):
        services.advance(change.pk)


@pytest.fixture
def world() -> World:
    return World()


def test_a_slot_leaves_before_its_engine_starts_and_is_one_again_once_the_undo_has_ended_it(
    world: World, actor: Actor
) -> None:
    change = world.take(actor, {world.slot.pk: False, world.free.pk: True})
    assert world.slots() == {world.free.pk}
    confirm(world.slot)
    assert Change.objects.get(pk=change.pk).state == "done"

    back = undo(change, actor)
    assert world.slots() == set(), "the free one at once, the other not while its engine ends"
    empty(world)
    back.refresh_from_db()
    assert (back.state, world.slots()) == ("done", {world.slot.pk})
    [event] = AuditEvent.objects.filter(verb="pool", subject_id=world.slot.pk, reason="back")
    assert (event.before, event.after, event.revision.change_id) == ({"pool": False}, {"pool": True}, back.pk)

    again = undo(back, actor)
    confirm(world.slot)
    again.refresh_from_db()
    assert (again.state, world.slots()) == ("done", {world.free.pk}), "an undo is undone the same way"


def test_a_change_that_is_led_back_gives_its_slots_back(world: World, actor: Actor) -> None:
    change = world.take(actor, {world.slot.pk: False, world.free.pk: True})
    services.roll_back_change(change.pk, actor=actor, reason="it does not start")
    empty(world)
    change.refresh_from_db()
    assert (change.state, world.slots()) == ("rolled_back", {world.slot.pk})


def test_a_slot_that_somebody_put_back_is_left_alone(world: World, actor: Actor) -> None:
    change = world.take(actor, {world.slot.pk: False, world.free.pk: True})
    confirm(world.slot)
    services.set_pool(world.free.pk, pool=False, actor=actor)
    back = undo(change, actor)
    assert [row["partition"]["id"] for row in back.plan["pool"]] == [world.slot.pk]


def test_slots_alone_are_a_change_that_is_done_at_once(world: World, actor: Actor) -> None:
    change = services.apply_change([], version=versions.current(), actor=actor, pool={world.free.pk: True})
    assert (change.state, world.slots()) == ("done", {world.slot.pk, world.free.pk})
    assert services.inverse_moves(change.pk) == []
    services.set_pool(world.free.pk, pool=False, actor=actor)
    with pytest.raises(Refused, match="as it was before"):
        services.inverse_moves(change.pk)


def test_whoever_changed_the_slots_node_since_the_preview_makes_it_stale(world: World, actor: Actor) -> None:
    change = services.apply_change([], version=versions.current(), actor=actor, pool={world.free.pk: True})
    version = versions.current()
    services.set_pool(world.slot.pk, pool=False, actor=actor)
    with pytest.raises(services.Stale, match="was faster"):
        undo(change, actor, version=version)
    assert world.free.pk in world.slots()


def test_nothing_is_changed_where_one_of_its_slots_may_not_be(world: World, actor: Actor) -> None:
    away = make_partition(make_node("sim-b"))
    with pytest.raises(NotFound):
        world.take(actor, {world.slot.pk: False, 4711: True})
    Node.objects.filter(pk=away.node_id).update(restricted=True)
    person = Actor("pete", "web", user=User.objects.create_user("pete"))
    with pytest.raises(NotOwner, match="may change node sim-b"):
        world.take(person, {world.slot.pk: False, away.pk: True})
    services.apply_change([Move(world.free.pk, world.chat.pk, Role.DECODE)], version=versions.current(), actor=actor)
    with pytest.raises(Conflict, match="is part of change"):
        world.take(actor, {world.slot.pk: False, world.free.pk: True})
    assert (world.slots(), Change.objects.count()) == ({world.slot.pk}, 1)
