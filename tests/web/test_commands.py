"""What the palette's typed commands mean."""

from __future__ import annotations

import pytest

from controlplane.domain.rollout import Move
from controlplane.web.commands import Intended, Names, Place, Planned, Shifted, offers
from workers.contract import Role

NAMES = Names(
    partitions={
        "node-3/p0": Place(1, 7, Role.PREFILL),
        "node-3/p1": Place(2, 7, Role.DECODE),
        "node-3/p2": Place(3, None, None),
    },
    deployments={"llama": 7, "qwen": 8},
    nodes={"node-3": 30, "node-7": 70, "node-70": 71},
    spelled={"qwen": "Qwen"},
)


def only(sentence: str) -> object:
    found = offers(sentence, NAMES)
    assert len(found) == 1, found
    return found[0]


def test_flip_to_a_role_is_a_move_within_the_deployment() -> None:
    assert only("flip node-3/p1 to prefill") == Planned("Flip node-3/p1 to prefill", (Move(2, 7, Role.PREFILL),))


def test_flip_without_a_role_offers_the_other_one() -> None:
    assert only("Flip  node-3/p0") == Planned("Flip node-3/p0 to decode", (Move(1, 7, Role.DECODE),))


def test_several_partitions_are_one_draft() -> None:
    assert only("flip node-3/p0, node-3/p1 to aggregated").moves == (
        Move(1, 7, Role.AGGREGATED),
        Move(2, 7, Role.AGGREGATED),
    )


def test_an_unfinished_name_offers_what_it_could_become() -> None:
    assert [offer.label for offer in offers("flip node-3", NAMES)] == [
        "Flip node-3/p0 to decode",
        "Flip node-3/p1 to prefill",
    ]


def test_an_idle_partition_has_no_role_to_flip() -> None:
    assert offers("flip node-3/p2 to prefill", NAMES) == []


def test_a_flip_to_where_it_is_offers_nothing() -> None:
    assert offers("flip node-3/p0 to prefill", NAMES) == []


@pytest.mark.parametrize("words", ["llama decode", "decode of llama", "llama as decode"])
def test_assign_names_a_deployment_and_a_role(words: str) -> None:
    assert only(f"assign node-3/p2 to {words}") == Planned(
        "Assign node-3/p2 to decode of llama", (Move(3, 7, Role.DECODE),)
    )


def test_assign_without_a_role_offers_each() -> None:
    assert [offer.moves[0].role for offer in offers("assign node-3/p2 to llama", NAMES)] == list(Role)


def test_a_deployment_is_spelled_as_people_wrote_it() -> None:
    assert only("assign node-3/p2 to qwen prefill").label == "Assign node-3/p2 to prefill of Qwen"


def test_move_a_partition_to_a_role_keeps_its_deployment() -> None:
    assert only("move node-3/p1 to prefill").moves == (Move(2, 7, Role.PREFILL),)


def test_release_leaves_out_what_is_idle() -> None:
    assert only("release node-3/p1") == Planned("Release node-3/p1", (Move(2, None, None),))
    assert offers("release node-3/p2", NAMES) == []


def test_so_many_gpus_from_role_to_role_is_a_shift() -> None:
    assert only("move 2 GPUs of llama from decode to prefill") == Shifted(
        "Move 2 GPUs of llama from decode to prefill", 7, Role.DECODE, Role.PREFILL, 2
    )
    assert only("move 1 gpu of llama from prefill to decode").label == "Move 1 GPU of llama from prefill to decode"


def test_an_unfinished_shift_offers_the_usual_ways() -> None:
    assert [offer.label for offer in offers("move 2 gpus", NAMES)] == [
        "Move 2 GPUs of llama from prefill to decode",
        "Move 2 GPUs of llama from decode to prefill",
        "Move 2 GPUs of Qwen from prefill to decode",
        "Move 2 GPUs of Qwen from decode to prefill",
    ]


@pytest.mark.parametrize("verb", ["cordon", "uncordon", "drain"])
def test_a_node_is_named_exactly_or_by_its_beginning(verb: str) -> None:
    assert only(f"{verb} node-7") == Intended(f"{verb.capitalize()} node-7", verb, 70)
    assert len(offers(f"{verb} node", NAMES)) == 3


@pytest.mark.parametrize("sentence", ["", "flip", "launch node-3", "move", "flip nothing/p1 to prefill", "move 2 x"])
def test_what_is_no_sentence_offers_nothing(sentence: str) -> None:
    assert offers(sentence, NAMES) == []
