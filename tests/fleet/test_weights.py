"""What agents tell of the weights on their nodes is kept, told, and decides between equal slots."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.fleet import reports, weights
from controlplane.fleet.models import Activation, HeldWeights, Node
from controlplane.fleet.services.waking import Ask, wake
from tests.factories import make_deployment, make_gpu, make_model, make_node, make_partition
from tests.fleet.reporting import settle, tell
from workers.contract import ReportReply
from workers.weights import Weights, WeightsReport, WeightsState

pytestmark = pytest.mark.django_db
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    reports.forget()
    yield
    reports.forget()


@pytest.fixture
def node() -> Node:
    return make_node("n1", gpus=1)


def held(source: str = "/models/a", **more: Any) -> Weights:
    return Weights(**({"source": source, "state": WeightsState.COMPLETE, "bytes": 100, "total_bytes": 100} | more))


def say(node: Node, *models: Weights, left_out: int = 0, **more: Any) -> ReportReply:
    report = WeightsReport(models=models, left_out=left_out)
    return tell(node, weights_mark=report.mark(), weights=report, **more)


def test_what_a_node_holds_is_kept_and_changes_with_what_it_tells(node: Node) -> None:
    assert not say(node, held(), held("/models/b", used_at=1.7e9), left_out=3).weights
    first = {row.source: row.pk for row in HeldWeights.objects.all()}
    node.refresh_from_db()
    assert node.weights_left_out == 3 and first.keys() == {"/models/a", "/models/b"}
    assert HeldWeights.objects.get(source="/models/b").used_at.year == 2023
    say(node, held("/models/b", state=WeightsState.PARTIAL, bytes=7, message="cut off\0"), held("/models/c"))
    rows = {row.source: row for row in HeldWeights.objects.all()}
    assert rows.keys() == {"/models/b", "/models/c"} and rows["/models/b"].pk == first["/models/b"]
    assert (rows["/models/b"].state, rows["/models/b"].bytes, rows["/models/b"].message) == ("partial", 7, "cut off")
    say(node)
    assert not HeldWeights.objects.exists()


def test_the_list_is_asked_for_until_it_has_come(node: Node) -> None:
    now = timezone.now()
    mark = WeightsReport(models=(held(),)).mark()
    assert [tell(node, now=now, weights_mark=mark).weights for _ in range(3)] == [True] * 3
    assert not say(node, held(), now=now).weights
    assert not tell(node, now=now, weights_mark=mark).weights
    Node.objects.update(weights_mark="as a backup had it")
    reports.forget()
    assert tell(node, now=now + timedelta(seconds=5), weights_mark=mark).weights


def test_an_agent_that_tells_nothing_is_asked_nothing(node: Node) -> None:
    assert not tell(node).weights


def test_what_was_told_already_is_nothing_new(node: Node, django_assert_num_queries: Any) -> None:
    now = timezone.now()
    report = WeightsReport(models=(held(),))
    settle(node, now, weights_mark=report.mark(), weights=report)
    with django_assert_num_queries(2):  # what `tell` itself reads of the node
        tell(node, now=now + timedelta(seconds=1), weights_mark=report.mark())


def test_a_model_is_where_its_source_is_and_its_revision(node: Node) -> None:
    folder, hub = (
        make_model("folder", kind="folder", source="/models/a"),
        make_model("hub", kind="huggingface", source="o/m"),
    )
    pinned = make_model("pinned", kind="huggingface", source="o/m", revision=COMMIT)
    tagged = make_model("tagged", kind="huggingface", source="o/m", revision="v2")
    say(node, held(), held("/models/unregistered"), held("o/m", revisions=(COMMIT,)))
    assert [model.name for model, _ in weights.of_node(node)] == ["folder", "pinned"]
    say(node, held(), held("o/m", revisions=(COMMIT,)), held("o/m", revisions=("f" * 40, "main"), state="partial"))
    names = {model.name: row.state for model, row in weights.of_node(node)}
    assert names == {"folder": "complete", "hub": "partial", "pinned": "complete"}
    assert [weights.nodes_holding(m) for m in (folder, pinned)] == [{node.pk}] * 2
    assert not weights.nodes_holding(hub) and not weights.nodes_holding(tagged)
    assert [row.state for row in weights.of_model(hub)] == ["partial"] and weights.of_model(tagged) == []


def test_of_equal_slots_the_one_whose_node_holds_the_weights_takes_the_model() -> None:
    model = make_model("m", kind="folder", source="/models/a")
    make_deployment("rare", mode="pooled", model=model)
    far, near = make_node("far"), make_node("near")
    for place in (far, near):
        make_partition(place, gpus=[make_gpu(place, memory_bytes=80 * 2**30)], pool=True)
    say(near, held())
    wake({"rare": Ask()})
    activation = Activation.objects.get()
    assert activation.slot.startswith("near/") and activation.reason.endswith("and its weights lie on that node")
