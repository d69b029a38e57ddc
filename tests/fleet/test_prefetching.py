"""Weights of models that are likely to be asked for lie on nodes of the pool before anybody asks."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import pool_habits, services
from controlplane.fleet.models import HeldWeights, Node, RegisteredModel, WantedWeights
from controlplane.fleet.publish import spec_of
from controlplane.fleet.services.prefetching import prefetch
from tests.factories import SMOLLM2_BYTES, make_model, make_node
from tests.fleet.test_ahead import OFTEN, SELDOM, habit
from tests.fleet.test_pool import GIB, pooled, slot

pytestmark = pytest.mark.django_db
NEVER = tuple(rate / 1000 for rate in SELDOM)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def place(name: str, *, room: int | None = 100 * GIB, memory: int = 80 * GIB, **columns: object) -> Node:
    node = make_node(name, fetch_room_bytes=room, last_seen=timezone.now() + timedelta(hours=1), **columns)
    slot(node, memory=memory)
    return node


def hub_model(name: str, **columns: object) -> RegisteredModel:
    model = make_model(name, kind="huggingface", source=f"org/{name}", **columns)
    pooled(name, model=model)
    return model


def learned(now: datetime, **rates: tuple[float, ...]) -> None:
    pool_habits.write([habit(name, now, rate) for name, rate in rates.items()], now)


def wished() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in WantedWeights.objects.filter(cause="forecast").order_by("node__name", "-chance"):
        found.setdefault(row.node.name, []).append(row.model.name)
    return found


def test_likely_models_are_wanted_on_two_nodes_the_likeliest_first_and_told_of(now: datetime) -> None:
    nodes = [place(name) for name in ("a", "b", "c")]
    for name in ("often", "seldom", "never", "unknown"):
        hub_model(name)
    pooled("folder")
    learned(now, often=OFTEN, seldom=SELDOM, never=NEVER, folder=OFTEN)
    assert prefetch(now) == 3
    on = wished()
    names = [name for models in on.values() for name in models]
    assert sorted(names) == ["often"] * 2 + ["seldom"] * 2
    spec = spec_of(Node.objects.get(name="a"))
    assert [one.source for one in spec.fetch] == [f"org/{name}" for name in on["a"]]
    event = AuditEvent.objects.filter(verb="fetch-weights", subject_id=nodes[0].pk).get()
    assert (event.actor_name, event.after) == ("pool", {"models": sorted(on["a"])})
    generations = set(Node.objects.values_list("generation", flat=True))
    assert prefetch(now) == 0 and set(Node.objects.values_list("generation", flat=True)) == generations


def test_nodes_that_cannot_hold_it_or_do_not_fetch_are_passed_over(now: datetime) -> None:
    place("small slot", memory=GIB // 8)
    place("no room", room=SMOLLM2_BYTES - 1)
    place("old agent", room=None)
    place("offline", fetch_why_not="HF_HUB_OFFLINE is set")
    place("cordoned", schedulable=False)
    place("good")
    make_node("no slot", fetch_room_bytes=100 * GIB)
    hub_model("often")
    learned(now, often=OFTEN)
    prefetch(now)
    assert wished() == {"good": ["often"]}


def test_room_that_people_want_for_others_is_theirs(now: datetime) -> None:
    node = place("a", room=2 * SMOLLM2_BYTES)
    mine, _, _ = (hub_model(name) for name in ("mine", "often", "seldom"))
    services.fetch_weights(node.pk, model_id=mine.pk, actor=Actor.system("kim"))
    learned(now, often=OFTEN, seldom=SELDOM, mine=OFTEN)
    prefetch(now)
    assert wished() == {"a": ["often"]}
    services.unfetch_weights(node.pk, model_id=mine.pk, actor=Actor.system("kim"))
    prefetch(now)
    assert sorted(wished()["a"]) == ["mine", "often"]


def test_where_it_lies_already_it_is_wanted_first(now: datetime) -> None:
    for name in ("a", "b", "c"):
        place(name, room=(200 if name != "c" else 1) * GIB)
    hub_model("often")
    node = Node.objects.get(name="c")
    HeldWeights.objects.create(node=node, source="org/often", revisions=["main"], state="complete", bytes=5)
    learned(now, often=OFTEN)
    prefetch(now)
    assert wished() == {"a": ["often"], "c": ["often"]}


def test_what_is_likely_no_more_is_taken_back_and_nothing_while_nothing_is_known(now: datetime) -> None:
    place("a")
    hub_model("one")
    learned(now, one=OFTEN)
    prefetch(now)
    assert prefetch(now + timedelta(hours=2)) == 0, "what was learned is too old to decide by"
    assert wished() == {"a": ["one"]}
    learned(now, one=NEVER)
    assert prefetch(now) == 1 and wished() == {}
    assert AuditEvent.objects.get(verb="unfetch-weights").after == {"models": ["one"]}


@pytest.mark.parametrize("name", ["POOL_FETCH", "POOL_PREDICT"])
def test_switched_off_it_takes_its_wishes_back_and_leaves_those_of_people(
    now: datetime, settings: object, name: str
) -> None:
    node = place("a")
    one, two = hub_model("one"), hub_model("two")
    learned(now, one=OFTEN)
    prefetch(now)
    services.fetch_weights(node.pk, model_id=two.pk, actor=Actor.system("kim"))
    setattr(settings, name, False)
    assert prefetch(now) == 1
    assert [row.model for row in WantedWeights.objects.all()] == [two] and one.pk


def test_a_node_that_is_silent_for_a_moment_keeps_its_wishes_and_then_others_have_them(now: datetime) -> None:
    for name in ("a", "b"):
        place(name)
    hub_model("one")
    learned(now, one=OFTEN)
    prefetch(now)
    place("c")
    Node.objects.filter(name="a").update(last_seen=now - timedelta(minutes=2))
    assert prefetch(now) == 0
    Node.objects.filter(name="a").update(last_seen=now - timedelta(minutes=11))
    prefetch(now)
    assert wished() == {"b": ["one"], "c": ["one"]}


def test_a_size_that_the_facts_lack_is_told_by_a_node_that_holds_it(now: datetime) -> None:
    node = place("a")
    model = hub_model("one")
    RegisteredModel.objects.filter(pk=model.pk).update(facts=model.facts | {"parameter_bytes": 0})
    learned(now, one=OFTEN)
    assert prefetch(now) == 0
    HeldWeights.objects.create(
        node=make_node("elsewhere"), source="org/one", revisions=["main"], state="partial", bytes=1, total_bytes=GIB
    )
    assert prefetch(now) == 1 and wished() == {node.name: ["one"]}
