"""Who gets a pool slot, and who leaves it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.pool import Resident, Slot, choose, rest_s, to_free, to_free_by_size

IDLE = Resident(deployment=1, in_flight=0, idle_s=100.0, resident_s=500.0, keep_alive_s=60.0)
RESIDENTS = st.builds(
    Resident,
    deployment=st.integers(1, 50),
    in_flight=st.none() | st.integers(0, 3),
    idle_s=st.none() | st.floats(0, 5000),
    resident_s=st.floats(0, 5000),
    keep_alive_s=st.floats(0, 600),
    priority=st.integers(-2, 2),
    return_chance=st.none() | st.floats(0, 1),
)
SLOTS = st.lists(
    st.builds(Slot, st.integers(1, 9999), st.integers(1, 99), st.none() | RESIDENTS, st.booleans(), st.booleans()),
    unique_by=lambda slot: slot.partition,
    max_size=12,
)


def pick(*slots: Slot, priority: int = 0) -> tuple[int | None, int | None]:
    choice = choose(slots, priority=priority, min_residence_s=30.0)
    return choice.slot, choice.evicted


def test_the_smallest_free_slot_is_taken_and_a_clear_one_first() -> None:
    assert pick(Slot(1, 40), Slot(2, 20), Slot(4, 10, IDLE)) == (2, None)
    assert pick(Slot(1, 40), Slot(2, 20, clear=False)) == (1, None)


def test_of_equal_free_slots_one_where_its_weights_lie_is_taken_and_the_reason_says_so() -> None:
    gib = 2**30
    near = Slot(2, 80 * gib - 5, near=True)
    assert pick(Slot(1, 80 * gib - 9), near) == (2, None), "hosts of one make differ by some bytes"
    assert pick(Slot(1, 40 * gib), near) == (1, None), "a large one is not taken up for that"
    assert pick(Slot(1, 80 * gib), replace(near, clear=False)) == (1, None)
    assert pick(Slot(1, 80 * gib), replace(near, failed=True)) == (1, None)
    reasons = [choose([slot], priority=0, min_residence_s=30.0).reason for slot in (near, Slot(1, 20))]
    assert reasons == [
        "the smallest free slot that holds it, and its weights lie on that node",
        "the smallest free slot that holds it",
    ]


def test_a_slot_where_the_model_failed_lately_is_the_last_to_be_tried() -> None:
    assert pick(Slot(1, 40), Slot(2, 20, failed=True)) == (1, None)
    assert pick(Slot(2, 20, failed=True)) == (2, None)
    assert pick(Slot(2, 20, IDLE, failed=True)) == (None, None)


def test_who_is_busy_unknown_fresh_or_more_important_stays() -> None:
    for change in ({"in_flight": 1}, {"in_flight": None}, {"idle_s": None}, {"resident_s": 5.0}, {"priority": 1}):
        assert pick(Slot(1, 20, replace(IDLE, **change))) == (None, None)


def test_who_is_past_its_keep_alive_leaves_before_who_is_not() -> None:
    kept = replace(IDLE, deployment=2, keep_alive_s=900.0, idle_s=800.0)
    assert pick(Slot(1, 20, kept), Slot(2, 20, IDLE)) == (2, 1)


def test_the_forecast_decides_before_the_longest_idle_where_it_knows_both() -> None:
    likely = replace(IDLE, deployment=2, idle_s=400.0, return_chance=0.9)
    assert pick(Slot(1, 20, likely), Slot(2, 20, replace(IDLE, return_chance=0.1))) == (2, 1)
    assert pick(Slot(1, 20, likely), Slot(2, 20, IDLE)) == (1, 2)


def test_slots_are_freed_ahead_only_of_who_no_longer_counts_as_active() -> None:
    kept = replace(IDLE, deployment=2, keep_alive_s=900.0)
    slots = [Slot(1, 20, IDLE), Slot(2, 20, kept), Slot(3, 20, replace(IDLE, deployment=3, idle_s=200.0))]
    assert [one.slot for one in to_free(slots, free=1, min_residence_s=30.0)] == [3]
    assert [one.slot for one in to_free(slots, free=9, min_residence_s=30.0)] == [3, 1]
    assert to_free([*slots, Slot(4, 20)], free=1, min_residence_s=30.0) == []


def test_slots_of_each_size_are_freed_for_its_own_and_what_one_lacks_is_taken_from_the_next_larger() -> None:
    idle = [replace(IDLE, deployment=place, idle_s=100.0 + place) for place in range(6)]
    busy = replace(IDLE, deployment=9, in_flight=1)
    slots = [Slot(1, 20, idle[1]), Slot(2, 20, busy), Slot(3, 40, idle[3], gpus=2), Slot(4, 40, idle[4], gpus=2)]

    def freed(free: dict[int, int], at_least: int = 0) -> list[int | None]:
        return [one.slot for one in to_free_by_size(slots, free=free, at_least=at_least, min_residence_s=30.0)]

    assert freed({2: 1}) == [4], "the longest idle of that size, though one of the other would do as well"
    assert freed({1: 1, 2: 1}) == [1, 4]
    assert freed({1: 2}) == [1, 4], "the other slot of one GPU is in use"
    assert freed({4: 3}) == [], "there is none so large"
    assert freed({}, at_least=1) == [4]
    assert freed({1: 1}, at_least=2) == [1, 4]


@given(SLOTS, st.integers(0, 6))
def test_where_all_are_of_one_size_it_is_the_same_whether_sizes_are_told_or_not(slots: list[Slot], free: int) -> None:
    plain = to_free(slots, free=free, min_residence_s=30.0)
    assert to_free_by_size(slots, free={}, at_least=free, min_residence_s=30.0) == plain
    assert to_free_by_size(slots, free={1: free}, at_least=0, min_residence_s=30.0) == plain


@given(SLOTS, st.integers(-2, 2))
def test_nobody_in_use_or_unknown_ever_leaves(slots: list[Slot], priority: int) -> None:
    residents = {slot.partition: slot.resident for slot in slots}
    choices = [choose(slots, priority=priority, min_residence_s=30.0), *to_free(slots, free=5, min_residence_s=30.0)]
    for choice in choices:
        leaving = residents[choice.slot] if choice.slot is not None else None
        assert (leaving.deployment if leaving else None) == choice.evicted
        if leaving:
            assert leaving.in_flight == 0
            assert leaving.idle_s is not None
            assert leaving.resident_s >= 30.0
    assert len({choice.slot for choice in choices[1:]}) == len(choices[1:])


@given(SLOTS)
def test_a_free_slot_is_never_passed_over_for_a_taken_one(slots: list[Slot]) -> None:
    if any(slot.resident is None for slot in slots):
        assert choose(slots, priority=0, min_residence_s=0.0).evicted is None


def test_the_second_failure_makes_the_next_try_wait_and_each_one_after_it_longer() -> None:
    waits = [rest_s(failures) for failures in range(12)]
    assert waits[:4] == [0.0, 0.0, 30.0, 60.0]
    assert waits == sorted(waits)
    assert waits[-1] == 600.0
