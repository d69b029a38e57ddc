"""A pair that waits finds its two slots in the end, though models that need one are faster to each that comes free."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.fleet import pool_use, verified
from controlplane.fleet.models import Activation, Node, Partition
from controlplane.fleet.services import kept
from controlplane.fleet.services.waking import Ask, Standing, State, wake
from tests.factories import make_deployment, make_node
from tests.fleet.test_pairs import HALVES, held_by, idle, pair, pooled, ready, resident, slot

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def node() -> Node:
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=5))
    return make_node("n1", last_seen=timezone.now() + timedelta(minutes=5))


def ask(name: str, after_s: float, **more: object) -> Standing:
    return wake({name: Ask(**more)}, now=timezone.now() + timedelta(seconds=after_s))[name]


def busy(name: str, node: Node) -> Partition:
    pool_use.write("gw:1", [(name, 1, timezone.now().timestamp())])
    return resident(node, pooled(name))


def leave(row: Partition) -> None:
    Partition.objects.filter(pk=row.pk).update(deployment=None, role="", phase="", generation=9, observed_generation=9)


def test_whoever_came_later_does_not_take_the_slot_that_it_has_waited_for(node: Node) -> None:
    pair("large")
    pooled("small")
    first, second = busy("a", node), busy("b", node)
    assert ask("large", 0).state is State.WAITING
    leave(first)
    standing = ask("small", 1)
    assert (standing.state, standing.message) == (
        State.WAITING, "what holds it is kept for large, which waits for two slots",
    )  # fmt: skip
    leave(second)
    assert ask("large", 2).state is State.STARTING
    assert sorted(held_by("large")) == HALVES


def test_one_that_may_leave_does_not_leave_for_it_either(node: Node) -> None:
    pair("large")
    pooled("small")
    idle("a", node, ago_s=500)
    busy("b", node)
    assert ask("large", 0).state is State.WAITING
    assert ask("small", 1).state is State.WAITING
    assert sorted(Partition.objects.values_list("deployment__name", flat=True)) == ["a", "b"]


def test_other_slots_are_anybodys(node: Node) -> None:
    pair("large")
    pooled("small")
    busy("a", node)
    busy("b", node)
    resident(node, make_deployment("dedicated"))  # never the pool's to empty: nothing to wait for
    assert ask("large", 0).state is State.WAITING
    third = slot(node)
    assert ask("large", 0.5).state is State.WAITING, "one is free, and it keeps the free one"
    assert ask("small", 1).state is State.WAITING
    slot(node, memory=third.gpus.get().memory_bytes)
    ready_now = wake({"large": Ask(), "small": Ask()}, now=timezone.now() + timedelta(seconds=2))
    assert ready_now["large"].state is State.STARTING
    assert ready_now["small"].state is State.WAITING
    slot(node)
    assert ask("small", 3).state is State.STARTING


@pytest.mark.parametrize("why", ["asked before", "higher priority", "asked too long ago", "nobody waits any more"])
def test_it_keeps_nothing_from(node: Node, why: str) -> None:
    pair("large")
    pooled("small", priority=1 if why == "higher priority" else 0)
    first = busy("a", node)
    busy("b", node)
    if why == "asked before":
        assert ask("small", -1).state is State.WAITING
    assert ask("large", 0).state is State.WAITING
    leave(first)
    after_s = 1.0
    if why == "asked too long ago":
        Activation.objects.update(asked_at=timezone.now() - kept.KEEP)
    if why == "nobody waits any more":
        after_s = kept.WANTED.total_seconds() + 1
    assert ask("small", after_s).state is State.STARTING


def test_a_slot_that_it_would_not_take_itself_is_not_kept(node: Node) -> None:
    large = pair("large")
    pooled("small")
    first = idle("a", node, ago_s=500)
    busy("b", node)
    third = busy("c", node)
    now = timezone.now()
    Activation.objects.create(
        deployment=large, cause="request", state="failed", partition=first, asked_at=now, wanted_at=now, ended_at=now,
        message="it ended",
    )  # fmt: skip
    assert ask("large", 1).state is State.WAITING
    assert ask("small", 2).state is State.STARTING, "where the pair failed, and somebody leaves"
    assert Partition.objects.get(pk=third.pk).deployment is not None


def test_while_nobody_may_be_made_to_leave_one_free_slot_is_not_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair("large")
    pooled("small")
    slot(node)
    busy("a", node)
    monkeypatch.setattr("controlplane.fleet.services.slots.Round.may_evict", lambda self: False)
    assert ask("large", 0).state is State.WAITING
    assert ask("small", 1).state is State.STARTING


def test_ahead_of_a_request_it_is_not_taken(node: Node) -> None:
    pair("large")
    pooled("small")
    first = busy("a", node)
    busy("b", node)
    assert ask("large", 0).state is State.WAITING
    leave(first)
    assert ask("small", 1, waiters=0, cause=Activation.Cause.AHEAD).state is State.WAITING


def test_of_two_pairs_the_one_that_waits_longer_is_first(node: Node) -> None:
    pair("first")
    pair("second")
    one, other = busy("a", node), busy("b", node)
    assert ask("first", 0).state is State.WAITING
    assert ask("second", 1).state is State.WAITING
    leave(one)
    leave(other)
    assert ask("second", 2).state is State.WAITING
    assert ask("first", 3).state is State.STARTING
    ready("first")
    assert sorted(held_by("second")) == []
