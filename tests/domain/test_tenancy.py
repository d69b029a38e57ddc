"""What teams can always have of the pool."""

from __future__ import annotations

import random

import pytest

from controlplane.domain.pool import Resident, Slot, choose, to_free_gpus
from controlplane.domain.tenancy import NONE, Floors, Holdings

SEARCH, ADS = 1, 2
# deployments 10-19 are search's, 20-29 of ads, the others nobody's
OWNERS = dict.fromkeys(range(10, 20), SEARCH) | dict.fromkeys(range(20, 30), ADS)
FLOORS = Floors({SEARCH: 2, ADS: 1}, OWNERS, {SEARCH: "search", ADS: "ads"})


def holdings(residents: list[int | None], floors: Floors = FLOORS) -> Holdings:
    """Of slots of one GPU."""
    gpus: dict[int, int] = {}
    for one in residents:
        if one is not None:
            gpus[one] = gpus.get(one, 0) + 1
    return Holdings.of(floors, gpus, residents.count(None))


def slot(resident: int | None, partition: int = 1, gpus: int = 1, idle_s: float = 999.0) -> Slot:
    there = None if resident is None else Resident(resident, 0, idle_s, 999.0, 300.0)
    return Slot(partition, 2**30, there, gpus=gpus)


@pytest.mark.parametrize(
    ("residents", "asks", "may"),
    [
        ([None, None, None, None], 99, True),  # four free, three owed
        ([None, None, None], 99, False),
        ([None, None, None], 10, True),
        ([None, None, None], 20, True),
        ([10, None, None], 99, False),  # one owed to search, one to ads
        ([10, 11, None], 99, False),  # the last is ads'
        ([10, 11, None], 12, False),  # search has its two
        ([10, 11, None], 20, True),
        ([10, 11, 20, None], 99, True),  # nobody is owed anything any more
        ([10, 11, 20, None], 12, True),
    ],
)
def test_free_slots_go_to_others_only_beyond_what_teams_are_owed(
    residents: list[int | None], asks: int, may: bool
) -> None:
    assert (holdings(residents).refusal(slot(None), asks) == "") is may


@pytest.mark.parametrize(
    ("residents", "leaves", "asks", "may"),
    [
        ([10, 11, 20], 10, 99, False),  # within search's two
        ([10, 11, 12], 10, 99, True),  # one beyond them
        ([10, 11, 20], 10, 12, True),  # its own team
        ([10, 11, 20], 10, 21, False),  # ads has its one
        ([99, 98, 97], 99, 98, True),  # nobody's
        ([10, 11, 20], 20, 10, False),
    ],
)
def test_nobody_leaves_for_another_team_within_its_floor(
    residents: list[int | None], leaves: int, asks: int, may: bool
) -> None:
    assert (holdings(residents).refusal(slot(leaves), asks) == "") is may


def test_without_floors_nothing_is_refused() -> None:
    found = holdings([10, None], NONE)
    assert found.refusal(slot(None), 99) == "" == found.refusal(slot(10), 99)
    assert found.owed() == 0 and not found.is_under(10)


def test_the_refusal_names_who_is_owed_what() -> None:
    assert holdings([10, None, None]).refusal(slot(None), 99) == (
        "the free slots are kept for search (1 of its 2 GPUs in use), ads (0 of its 1 GPUs in use)"
    )
    assert "within the floor of search" in holdings([10, 11]).refusal(slot(10), 99)


def test_a_slot_larger_than_what_is_left_of_a_floor_is_given_all_the_same() -> None:
    floors = Floors({SEARCH: 3}, OWNERS, {})
    found = Holdings.of(floors, {10: 2}, 2)
    assert found.is_under(11) and found.refusal(slot(None, gpus=2), 11) == ""
    assert found.refusal(slot(None, gpus=2), 99) != ""


@pytest.mark.parametrize("seed", range(20))
def test_whatever_came_before_a_team_under_its_floor_finds_a_slot(seed: int) -> None:
    """Slots of one GPU; models come and go, are idle or busy at random. All residents may be busy: a floor is met by
    what is free."""
    chance = random.Random(seed)
    residents: list[int | None] = [None] * 6
    busy: set[int] = set()
    for _ in range(300):
        now = holdings(residents)
        asks = chance.choice([10, 11, 12, 20, 21, 30, 31, 32, 33, 34, 35])
        if asks not in residents:
            views = [
                Slot(i, 2**30, None if r is None else Resident(r, int(r in busy), 500.0, 500.0, 300.0))
                for i, r in enumerate(residents)
            ]
            views = [view for view in views if not now.refusal(view, asks)]
            choice = choose(views, priority=0, min_residence_s=0.0)
            if choice.slot is not None:
                residents[choice.slot] = asks
            else:
                assert not now.is_under(asks), f"{asks} found nothing in {residents}"
        if chance.random() < 0.2 and (there := [r for r in residents if r is not None]):
            gone = chance.choice(there)
            residents[residents.index(gone)] = None
            busy.discard(gone)
        busy = {r for r in residents if r is not None and chance.random() < 0.8}
        assert residents.count(None) >= holdings(residents).owed()


def test_slots_are_emptied_until_what_is_owed_is_free() -> None:
    slots = [slot(30, 1, 2, 400.0), slot(31, 2, 1, 900.0), slot(32, 3, 1, 100.0), slot(None, 4, 1)]
    freed = to_free_gpus(slots, 3, most=5, min_residence_s=30.0)
    assert [choice.slot for choice in freed] == [2, 1], "the longest idle first, and none that is active"
    assert to_free_gpus(slots, 1, most=5, min_residence_s=30.0) == []
    assert len(to_free_gpus(slots, 9, most=1, min_residence_s=30.0)) == 1
