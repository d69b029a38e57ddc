"""A draft in an address, and back."""

from __future__ import annotations

import pytest
from django.http import QueryDict

from controlplane.domain.rollout import Move
from controlplane.web import drafts, shifts
from controlplane.web.drafts import Draft
from workers.contract import Role


def test_an_address_becomes_moves_and_the_same_address_again() -> None:
    draft = drafts.read(QueryDict("move=12:3:prefill&move=14:idle&filter=x"))
    assert draft.moves == (Move(12, 3, Role.PREFILL), Move(14, None, None))
    assert draft.query == "move=12:3:prefill&move=14:idle"


def test_of_several_moves_of_a_partition_the_last_counts() -> None:
    assert drafts.read(QueryDict("move=1:2:decode&move=1:idle")).moves == (Move(1, None, None),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1:2",
        "1:2:worker",
        "a:2:decode",
        "1:b:decode",
        "-1:idle",
        "1:2:3:decode",
        "\u0661:idle",
        f"{9:030}:idle",
    ],
)
def test_what_is_no_move_is_told_and_left_out(text: str) -> None:
    draft = drafts.read(_query(text))
    assert draft.moves == ()
    assert draft.unread == (text[:40],)


def test_a_draft_is_added_to_and_taken_from() -> None:
    draft = Draft((Move(1, 2, Role.DECODE),)).plus([Move(3, None, None)])
    assert draft.words == ["1:2:decode", "3:idle"]
    assert draft.without(1).words == ["3:idle"]
    assert not draft.without(1).without(3)


def test_an_address_has_an_end() -> None:
    query = "&".join(f"move={n}:idle" for n in range(drafts.MOST + 50))
    assert len(drafts.read(QueryDict(query)).moves) == drafts.MOST


@pytest.mark.parametrize(
    ("sizes", "possible"), [([2, 2, 4], [2, 4, 6, 8]), ([4], [4]), ([], []), ([1, 4], [1, 4, 5]), ([3, 3], [3, 6])]
)
def test_whole_partitions_make_up_only_some_counts(sizes: list[int], possible: list[int]) -> None:
    assert shifts.counts(sizes) == possible


def _query(text: str) -> QueryDict:
    query = QueryDict(mutable=True)
    query["move"] = text
    return query
