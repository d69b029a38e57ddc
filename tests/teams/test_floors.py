"""What a team can always have of the pool, in the rows: who is given a slot, who waits, who is made to leave."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain.tenancy import NONE
from controlplane.fleet import verified
from controlplane.fleet.errors import Invalid
from controlplane.fleet.models import Activation, Node, Partition
from controlplane.fleet.services import pool
from controlplane.fleet.services.waking import Ask, State, wake
from controlplane.teams import floors
from controlplane.teams.models import Team
from controlplane.teams.services import change_team, create_team
from tests.factories import make_node
from tests.fleet.test_pool import pooled, resident, slot, used

pytestmark = pytest.mark.django_db
ADMIN = Actor.system("tester")


@pytest.fixture(autouse=True)
def _gateway_lives() -> None:
    verified.beat("gw:1", "", timezone.now() + timedelta(minutes=1))


@pytest.fixture
def node() -> Node:
    return make_node("n1")


def team(name: str, floor: int, *models: str) -> None:
    create_team(name=name, pool_floor=floor, deployments=models, actor=ADMIN)


def ask(name: str) -> State:
    return wake({name: Ask()}, floors=floors.read())[name].state


def there(partition: Partition) -> str | None:
    partition.refresh_from_db()
    return partition.deployment.name if partition.deployment else None


def test_the_last_free_slots_are_those_of_teams_that_are_owed_them(node: Node) -> None:
    for name in ("ours", "anybodys", "another"):
        pooled(name)
    team("search", 1, "ours")
    slot(node), slot(node)
    assert ask("anybodys") == State.STARTING
    assert ask("another") == State.WAITING
    waiting = Activation.objects.get(deployment__name="another")
    assert waiting.reason == "the free slots are kept for search (0 of its 1 GPUs in use)"
    assert ask("ours") == State.STARTING
    assert ask("another") == State.WAITING


def test_an_idle_model_within_its_teams_floor_stays_and_one_beyond_it_leaves(node: Node) -> None:
    mine, more = pooled("mine"), pooled("more")
    pooled("rare")
    first, second = resident(node, mine), resident(node, more)
    used("mine", ago_s=900)
    used("more", ago_s=500)
    team("search", 2, "mine", "more")
    assert ask("rare") == State.WAITING
    assert "within the floor of search" in Activation.objects.get().reason
    change_team(floors_id("search"), pool_floor=1, actor=ADMIN)
    assert ask("rare") == State.STARTING
    assert [there(first), there(second)] == ["rare", "more"]
    assert ask("mine") == State.WAITING, "search has its one, and nobody else is idle"


def test_under_its_floor_a_team_takes_what_is_idle_of_any_priority(node: Node) -> None:
    partition = resident(node, pooled("important", priority=9))
    used("important", ago_s=900)
    pooled("ours")
    assert ask("ours") == State.WAITING
    team("search", 1, "ours")
    assert ask("ours") == State.STARTING
    assert there(partition) == "ours"


def test_slots_are_emptied_for_what_teams_are_owed(node: Node, settings: object) -> None:
    settings.POOL_FREE = 0
    old, new = resident(node, pooled("old")), resident(node, pooled("new"))
    used("old", ago_s=5000)
    used("new", ago_s=10)
    pooled("ours")
    assert pool.sweep(timezone.now(), free=0, floors=NONE) == []
    team("search", 2, "ours")
    assert pool.sweep(timezone.now(), free=0, floors=floors.read()) == ["old"], "the other one is active"
    assert [there(old), there(new)] == [None, "new"]


def test_slots_of_a_node_that_takes_no_engines_are_no_ones_floor(node: Node) -> None:
    slot(node)
    drained = make_node("n2", draining=True)
    slot(drained)
    pooled("ours")
    pooled("rare")
    team("search", 1, "ours")
    assert ask("rare") == State.WAITING
    Node.objects.filter(pk=drained.pk).update(draining=False)
    assert ask("rare") == State.STARTING


def test_without_floors_a_look_asks_one_query_more_and_decides_as_before(node: Node) -> None:
    slot(node)
    pooled("rare")
    team("search", 0, "rare")
    with CaptureQueriesContext(connection) as seen:
        assert floors.read() is NONE
    assert len(seen) == 1
    assert ask("rare") == State.STARTING


def test_a_floor_is_a_number_of_gpus() -> None:
    with pytest.raises(Invalid):
        create_team(name="search", pool_floor=-1, actor=ADMIN)
    team("search", 3)
    assert floors.read().gpus == {floors_id("search"): 3}


def floors_id(name: str) -> int:
    return int(Team.objects.get(name=name).pk)
