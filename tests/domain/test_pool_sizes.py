"""Which slots a pool lacks and can spare, where they have several sizes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.pool_sizes import Sized, short, spare, to_add

HAVE = st.lists(st.sampled_from([1, 2, 4, 8]), max_size=8)
WANTED = st.dictionaries(st.sampled_from([1, 2, 4, 8]), st.integers(0, 4))


def slots(*gpus: int) -> list[Sized]:
    return [Sized(place, size) for place, size in enumerate(gpus)]


def test_two_slots_of_one_gpu_are_not_one_of_two() -> None:
    assert short([1, 1], {2: 1}) == {2: 1}
    assert short([1, 4], {2: 1}) == {}, "a larger one holds it"
    assert short([4], {1: 1, 2: 1}) == {1: 1}, "but only once"


def test_a_slot_of_a_size_that_is_not_wanted_is_spare() -> None:
    every = slots(1, 1, 2)
    assert spare(every, every, {1: 2}, least=0) == [every[2]]
    assert spare(every, every, {2: 1}, least=0) == every[:2]
    assert spare(every, every[:1], {2: 1}, least=3) == [], "so many are held of any size"


def test_a_slot_that_is_in_use_is_not_spare() -> None:
    every = slots(1, 2)
    assert spare(every, every[:1], {1: 1}, least=0) == [every[0]], "the larger one is there for it"


def test_the_smallest_partition_that_will_do_is_added() -> None:
    free = slots(8, 1, 2, 2)
    assert to_add([1], free, {1: 2, 2: 1}) == [(free[2], 2), (free[1], 1)]
    assert to_add([], slots(1, 1), {2: 1}) == [], "none is large enough"


@given(HAVE, HAVE, WANTED)
def test_what_is_added_is_lacking_and_nothing_more(have: list[int], free: list[int], wanted: dict[int, int]) -> None:
    added = to_add(have, slots(*free), wanted)
    assert len({one.partition for one, _ in added}) == len(added)
    before, after = short(have, wanted), short([*have, *(one.gpus for one, _ in added)], wanted)
    assert after.total() == before.total() - len(added)
    assert all(one.gpus >= gpus for one, gpus in added)


@given(HAVE, WANTED, st.integers(0, 4))
def test_without_what_is_spare_no_more_is_lacking(have: list[int], wanted: dict[int, int], least: int) -> None:
    every = slots(*have)
    rest = Counter(have)
    rest.subtract(one.gpus for one in spare(every, every, wanted, least=least))
    left = list(rest.elements())
    assert short(left, wanted).total() == short(have, wanted).total()
    assert len(left) >= min(least, len(have))
