"""Which slots may be lent: never one that is held for pooled models."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.lending import Held, lendable
from controlplane.domain.pool import Resident, Slot, choose, to_free, to_take_back
from controlplane.domain.pool_sizes import short

GIB = 2**30
NOTHING_HELD = Held({}, {}, 0)


def slot(pk: int, resident: Resident | None = None, *, gpus: int = 1) -> Slot:
    return Slot(pk, 80 * GIB * gpus, resident, gpus=gpus)


def model(pk: int = 9, *, idle_s: float = 600.0, **more: object) -> Resident:
    return Resident(pk, 0, idle_s, 900.0, 300.0, **more)


def test_an_empty_slot_beyond_those_held_free_may_be_lent() -> None:
    assert lendable([slot(1), slot(2)], Held({}, {}, 1)) == {1, 2}, "each by itself"
    assert lendable([slot(1)], Held({}, {}, 1)) == set()


def test_none_may_where_as_many_are_held_in_use_or_free() -> None:
    own = [slot(1), slot(2), slot(3, model(idle_s=10))]
    assert lendable(own, Held({1: 3}, {}, 0)) == set()
    assert lendable(own, Held({1: 2}, {}, 0)) == {1, 2}


def test_the_slot_of_a_model_that_is_no_longer_active_may_be_lent_and_costs_no_empty_one() -> None:
    own = [slot(1), slot(2, model(idle_s=600)), slot(3, model(idle_s=10))]
    assert lendable(own, Held({1: 2}, {}, 1)) == {2}


def test_sizes_are_told_apart() -> None:
    own = [slot(1), slot(2, gpus=2)]
    assert lendable(own, Held({2: 1}, {2: 1}, 0)) == {1}, "a slot of one GPU holds no model that needs two"
    assert lendable(own, Held({1: 1}, {1: 1}, 0)) == {1, 2}, "one of two holds the smaller one"


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["empty", "idle", "active"])), max_size=8),
    st.dictionaries(st.integers(1, 4), st.integers(0, 4), max_size=3),
    st.integers(0, 3),
)
def test_lending_one_never_leaves_less_than_is_held(
    rows: list[tuple[int, str]], held: dict[int, int], least: int
) -> None:
    residents = {"empty": None, "idle": model(idle_s=600), "active": model(idle_s=10)}
    own = [slot(pk, residents[what], gpus=gpus) for pk, (gpus, what) in enumerate(rows)]
    before = short([one.gpus for one in own], held).total()
    for pk in lendable(own, Held(held, {}, least)):
        left = [one for one in own if one.partition != pk]
        assert short([one.gpus for one in left], held).total() <= before
        assert own[pk].resident is not None or sum(one.resident is None for one in left) >= least
        assert own[pk].resident is None or not own[pk].resident.is_kept


def test_who_has_a_lent_slot_leaves_before_any_other_and_for_one_of_any_priority() -> None:
    lent = slot(1, model(1, idle_s=10, lent=True, priority=50))
    idle = slot(2, model(2, idle_s=5000, return_chance=0.1))
    assert choose([idle, lent], priority=0, min_residence_s=30).evicted == 1
    assert choose([lent], priority=0, min_residence_s=30).evicted == 1
    busy = slot(1, Resident(1, 2, 0.0, 900.0, 300.0, lent=True))
    assert choose([busy], priority=0, min_residence_s=30).slot is None, "never with a request in flight"


def test_one_without_a_chance_because_it_is_lent_does_not_hide_those_of_the_others() -> None:
    slots = [
        slot(1, model(1, idle_s=9000, return_chance=0.9)),
        slot(2, model(2, idle_s=400, return_chance=0.1)),
        slot(3, model(3, lent=True)),
    ]
    leaving = to_free(slots, free=2, min_residence_s=30)
    assert [choice.evicted for choice in leaving] == [3, 2]


def test_a_lent_slot_is_taken_back_once_its_keep_alive_is_over() -> None:
    def back(resident: Resident) -> list[int | None]:
        return [choice.slot for choice in to_take_back([slot(1, resident)], min_residence_s=30)]

    assert back(model(idle_s=301, lent=True)) == [1]
    assert back(model(idle_s=299, lent=True)) == []
    assert back(model(idle_s=301)) == [], "a pooled model stays until its slot is needed"
    assert back(Resident(9, None, None, 900.0, 300.0, lent=True)) == [], "nothing is known of it"
