from __future__ import annotations

import pytest

from controlplane.fleet.models import HeldWeights, Node, WantedWeights
from tests.cli.conftest import Terminal
from tests.factories import make_model, make_node

pytestmark = pytest.mark.django_db


@pytest.fixture
def node() -> Node:
    make_model("hub", kind="huggingface", source="org/hub")
    make_model("tiny", kind="folder", source="/models/tiny")
    node = make_node("n1", fetch_room_bytes=100 * 2**30)
    HeldWeights.objects.create(node=node, source="/models/tiny", state="complete", bytes=2**20, total_bytes=2**20)
    return node


def test_weights_are_fetched_looked_at_and_taken_back(operator: Terminal, node: Node) -> None:
    assert operator.ok("fetch", "hub", "n1", "--reason", "launch").strip() == "hub is fetched to n1."
    WantedWeights.objects.update(state="fetching", bytes=2**20, total_bytes=2**22)
    room, header, hub, tiny = operator.ok("weights", "--node", "n1").splitlines()
    assert room == "Fetched weights may come to 100 GiB there." and header.startswith("MODEL")
    assert hub.split()[:4] == ["hub", "n1", "fetching", "25%"] and "1.0 MiB of 4.0 MiB" in hub
    assert tiny.split()[:3] == ["tiny", "n1", "whole"]
    assert operator.json("weights", "--model", "hub")["weights"][0]["wanted"]["total_bytes"] == 2**22
    assert "not wanted on n1 any more" in operator.ok("fetch", "hub", "n1", "--back")
    assert "None of a registered model" in operator.ok("weights", "--model", "hub")


def test_a_node_that_fetches_nothing_says_so(operator: Terminal, node: Node) -> None:
    Node.objects.update(fetch_why_not="HF_HUB_OFFLINE is set on this node: nothing is fetched")
    assert "But: HF_HUB_OFFLINE is set" in operator.ok("fetch", "hub", "n1")
    assert operator.ok("weights", "--node", "n1").startswith("HF_HUB_OFFLINE is set")
