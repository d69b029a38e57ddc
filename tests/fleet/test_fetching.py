"""Weights that shall lie on a node: into its spec, what its agent says of them, and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import reports, services, weights, whereabouts
from controlplane.fleet.errors import Refused
from controlplane.fleet.models import Node, RegisteredModel, WantedWeights
from controlplane.fleet.publish import spec_of
from tests.factories import make_model, make_node
from tests.fleet.reporting import settle, tell
from workers.weights import (
    MOST_FETCHES,
    Fetching,
    FetchReport,
    FetchState,
    FetchWanted,
    Weights,
    WeightsReport,
    WeightsState,
)

pytestmark = pytest.mark.django_db
KIM = Actor(name="kim", source="rest")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    reports.forget()
    yield
    reports.forget()


@pytest.fixture
def node() -> Node:
    return make_node("n1", gpus=1)


def hub_model(name: str, **columns: Any) -> RegisteredModel:
    return make_model(name, kind="huggingface", source=f"org/{name}", **columns)


def fetch(node: Node, *names: str) -> list[WantedWeights]:
    models = RegisteredModel.objects.in_bulk(names, field_name="name")
    return [services.fetch_weights(node.pk, model_id=models[name].pk, actor=KIM, reason="launch") for name in names]


def wanted_of(node: Node) -> list[str]:
    node.refresh_from_db()
    spec = spec_of(node)
    assert spec is not None
    return [one.source for one in spec.fetch]


def fetching(source: str = "org/a", state: FetchState = FetchState.FETCHING, **more: Any) -> FetchReport:
    return FetchReport(fetches=(Fetching(source=source, state=state, **more),), room_bytes=7 * 2**30)


def test_what_is_asked_for_comes_into_the_spec_once_and_is_told_of(node: Node) -> None:
    model = hub_model("a", revision="v2")
    make_model("same files", kind="huggingface", source="org/a", revision="v2")
    fetch(node, "a", "same files")
    generation = Node.objects.get(pk=node.pk).generation
    fetch(node, "a")
    node.refresh_from_db()
    assert node.generation == generation, "asked for already"
    assert spec_of(node).fetch == (FetchWanted(source="org/a", revision="v2"),)
    event = AuditEvent.objects.filter(verb="fetch-weights").last()
    assert (event.after, event.reason) == ({"model": "a"}, "launch")
    services.unfetch_weights(node.pk, model_id=model.pk, actor=KIM)
    services.unfetch_weights(node.pk, model_id=model.pk, actor=KIM)
    assert AuditEvent.objects.filter(verb="unfetch-weights").count() == 1
    assert wanted_of(node) == ["org/a"], "the other model of the same files still wants them"


def test_what_people_ask_for_comes_first_then_the_likeliest(node: Node) -> None:
    for name, chance in (("rare", 0.1), ("likely", 0.8)):
        WantedWeights.objects.create(node=node, model=hub_model(name), cause="forecast", asked_by="pool", chance=chance)
    hub_model("mine")
    fetch(node, "mine")
    assert wanted_of(node) == ["org/mine", "org/likely", "org/rare"]
    fetch(node, "rare")
    assert wanted_of(node) == ["org/rare", "org/mine", "org/likely"], "what was likely is asked for now"


def test_a_node_that_is_emptied_fetches_nothing_until_it_takes_part_again(node: Node) -> None:
    hub_model("a")
    fetch(node, "a")
    services.drain(node.pk, actor=KIM)
    assert wanted_of(node) == []
    services.uncordon(node.pk, actor=KIM)
    assert wanted_of(node) == ["org/a"]


def test_folders_and_too_many_are_refused(node: Node) -> None:
    make_model("folder", kind="folder")
    with pytest.raises(Refused, match="there is nothing to fetch"):
        fetch(node, "folder")
    for n in range(MOST_FETCHES + 1):
        hub_model(f"m{n}")
    fetch(node, *(f"m{n}" for n in range(MOST_FETCHES)))
    with pytest.raises(Refused, match="which is the most"):
        fetch(node, f"m{MOST_FETCHES}")


def test_how_far_it_is_follows_the_reports_and_ends_when_it_lies_there(node: Node) -> None:
    model = hub_model("a")
    [row] = fetch(node, "a")
    tell(node, fetch=fetching(bytes=3, total_bytes=10))
    row.refresh_from_db()
    assert (row.state, row.bytes, row.total_bytes) == ("fetching", 3, 10)
    [shown] = whereabouts.of_node(node)
    assert (shown.state, shown.percent, shown.is_awaited) == ("missing", 30, True)
    tell(node, fetch=fetching(state=FetchState.FAILED, message="no room\0"))
    row.refresh_from_db()
    node.refresh_from_db()
    assert (row.state, row.message, row.bytes) == ("failed", "no room", 0)
    assert node.fetch_room_bytes == 7 * 2**30
    held = WeightsReport(models=(Weights(source="org/a", revisions=("c" * 40, "main"), state=WeightsState.COMPLETE,
                                         bytes=10, checked_at=1.7e9),))  # fmt: skip
    tell(node, fetch=FetchReport(why_not="offline"), weights=held, weights_mark=held.mark())
    [shown] = whereabouts.of_model(model)
    assert (shown.state, shown.wanted.state, shown.is_awaited) == ("complete", "", False)
    assert shown.held.checked_at.year == 2023 and Node.objects.get(pk=node.pk).fetch_why_not == "offline"
    assert weights.nodes_holding(model) == {node.pk}


def test_bytes_that_grow_are_no_news_and_what_was_told_is_nothing_new(
    node: Node, django_assert_num_queries: Any
) -> None:
    hub_model("a")
    [row] = fetch(node, "a")
    now = timezone.now()
    settle(node, now, fetch=fetching(bytes=3, total_bytes=10))
    with django_assert_num_queries(2):  # what `tell` itself reads of the node
        tell(node, now=now + timedelta(seconds=1), fetch=fetching(bytes=3, total_bytes=10))
    tell(node, now=now + timedelta(seconds=4), fetch=fetching(bytes=9, total_bytes=10))
    row.refresh_from_db()
    assert row.bytes == 9, "written with what may lag a few seconds"


def test_an_agent_that_knows_nothing_of_it_leaves_it_as_it_is(node: Node) -> None:
    hub_model("a")
    [row] = fetch(node, "a")
    tell(node)
    row.refresh_from_db()
    assert row.state == "" and whereabouts.of_node(node)[0].is_awaited
