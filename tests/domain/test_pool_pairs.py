"""Which two slots a pair takes, and who leaves them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.pool import Resident, Slot, to_free, to_free_by_size, to_free_gpus
from controlplane.domain.pool_pairs import BUSY, NO_TWO_FREE, NONE, Found, Half, choose
from controlplane.domain.prewarming import Due
from controlplane.domain.prewarming import choose as choose_due
from controlplane.domain.tenancy import Floors, Holdings
from controlplane.domain.types import Role
from tests.domain.test_pool import RESIDENTS
from tests.domain.views import make_gpu, make_gpus, make_linked_gpus, make_partition

GIB = 2**30
IDLE = Resident(deployment=1, in_flight=0, idle_s=100.0, resident_s=500.0, keep_alive_s=60.0)


def half(number: int, resident: Resident | None = None, *, node: str = "a", gpus: int = 1, **keys: object) -> Half:
    """With as many GPUs, none of them linked."""
    version = str(keys.pop("version", "0.32.0"))
    devices = tuple(make_gpu(10 * number + place) for place in range(gpus))
    view = make_partition(number, keys.pop("devices", devices), node_name=node, engine_version=version)
    return Half(Slot(number, gpus * 80 * GIB, resident, gpus=gpus, **keys), view)


def pick(*halves: Half, **keys: object) -> Found:
    return choose(halves, halves, **{"priority": 0, "min_residence_s": 30.0, **keys})


def taken(*halves: Half, **keys: object) -> tuple[int, ...]:
    return tuple(slot for slot, _ in pick(*halves, **keys).halves)


def test_two_free_ones_are_taken_with_a_role_each() -> None:
    found = pick(half(1), half(2))
    assert found.halves == ((1, Role.PREFILL), (2, Role.DECODE))
    assert found.reason == "the smallest two free slots that hold it as a pair, on one node"
    assert pick(half(1)).reason == pick().reason == NONE


def test_the_smallest_then_those_nearest_to_each_other_then_where_weights_lie() -> None:
    assert taken(half(1, gpus=2), half(2, node="b"), half(3, node="c")) == (2, 3)
    assert taken(half(1), half(2, node="b"), half(3, node="b")) == (2, 3)
    one, other = make_linked_gpus(2)
    assert taken(half(1), half(2), half(3, devices=(one,)), half(4, devices=(other,))) == (3, 4)
    assert taken(half(1), half(2), half(3, node="b", near=True), half(4, node="b", near=True)) == (3, 4)
    assert taken(half(1, failed=True), half(2), half(3, node="b")) == (2, 3)
    assert taken(half(1, clear=False), half(2), half(3, node="b")) == (2, 3)
    why = pick(half(1, near=True), half(2, node="b")).reason
    assert why == "the smallest two free slots that hold it as a pair, on two nodes, and its weights lie on one of them"


def test_only_engines_that_can_exchange_kv_are_paired() -> None:
    assert taken(half(1, gpus=2), half(2)) == (2, 1), "decode has as many GPUs at least"
    assert pick(half(1), half(2, node="b", version="0.33.0")).reason == NONE
    cpu = make_gpus(1, kind="cpu")
    assert pick(half(1), half(2, devices=cpu)).reason == NONE
    assert taken(half(1), half(2, node="b", version="0.33.0"), half(3, node="c")) == (1, 3)


def test_a_slot_holds_only_the_roles_that_it_was_found_for() -> None:
    found = choose([half(1), half(2)], [half(1)], priority=0, min_residence_s=30.0)
    assert found.halves == ((2, Role.PREFILL), (1, Role.DECODE))


def test_those_least_to_be_missed_leave_and_as_few_as_will_do() -> None:
    stays, old, older = (
        half(number, replace(IDLE, deployment=number, idle_s=idle_s))
        for number, idle_s in ((1, 70), (2, 400), (3, 500))
    )
    found = pick(stays, old, older)
    assert (set(found.evicted), found.leaving) == ({2, 3}, ())
    assert pick(stays, old, older, half(4)).evicted == (3,)
    assert pick(stays, old, older, half(4), half(5)).evicted == ()
    busy = half(6, replace(IDLE, deployment=6, in_flight=1))
    assert (pick(busy, half(7)).reason, pick(busy, half(7), evict=False).reason) == (BUSY, NO_TWO_FREE)


def test_a_pair_that_leaves_leaves_both() -> None:
    there = replace(IDLE, deployment=5, others_gpus=1)
    both = half(1, replace(there, others=(2,))), half(2, replace(there, others=(1,)))
    found = pick(*both)
    assert (set(dict(found.halves)), found.evicted, found.leaving) == ({1, 2}, (5,), ())
    found = pick(both[0], half(3))
    assert (set(dict(found.halves)), found.evicted, found.leaving) == ({1, 3}, (5,), (2,))
    slots = [one.slot for one in both]
    assert [choice.emptied for choice in to_free(slots, free=1, min_residence_s=30.0)] == [{1, 2}]
    assert [choice.emptied for choice in to_free(slots, free=2, min_residence_s=30.0)] == [{1, 2}]
    assert [choice.slot for choice in to_free_gpus(slots, 2, most=2, min_residence_s=30.0)] == [1]


def test_halves_of_two_sizes_are_freed_once_and_count_for_both() -> None:
    small = Slot(1, 80 * GIB, replace(IDLE, others=(2,), others_gpus=2))
    large = Slot(2, 160 * GIB, replace(IDLE, others=(1,), others_gpus=1), gpus=2)
    [choice] = to_free_by_size([small, large], free={1: 1, 2: 1}, at_least=2, min_residence_s=30.0)
    assert choice.emptied == {1, 2}


def test_a_floor_counts_both_and_one_that_is_owed_has_both() -> None:
    floors = Floors({1: 2}, {7: 1, 8: 1}, {1: "search"})
    first, second = Slot(1, GIB), Slot(2, GIB)
    for free, refused in ((3, True), (4, False)):
        held = Holdings.of(floors, {}, free)
        assert bool(held.pair_refusal(first, second, 99)) is refused
        assert held.pair_refusal(first, second, 7) == ""
    theirs = replace(IDLE, deployment=7)
    held = Holdings.of(floors, {7: 2, 8: 1}, 0)
    one, other = Slot(1, GIB, theirs), Slot(2, GIB, replace(theirs, deployment=8))
    assert held.refusal(one, 99) == held.refusal(other, 99) == ""
    assert held.pair_refusal(one, other, 99) == "the rest is within the floor of search"
    both = replace(theirs, others=(2,), others_gpus=1)
    assert held.refusal(Slot(1, GIB, both), 99) == "the rest is within the floor of search"


def test_ahead_of_requests_a_pair_needs_two_slots_beyond_those_held() -> None:
    pair, single = Due("pair", 0.9, False, "", slots=2), Due("single", 0.8, False, "")
    assert choose_due([pair, single], free=2, reserved=1, under_way=0) == [single]
    assert choose_due([pair, single], free=3, reserved=1, under_way=0) == [pair]
    assert choose_due([pair, single], free=3, reserved=0, under_way=0) == [pair, single]


HALVES = st.lists(
    st.builds(
        half,
        st.integers(1, 999),
        st.none() | RESIDENTS,
        node=st.sampled_from("abc"),
        gpus=st.sampled_from([1, 2]),
        version=st.sampled_from(["0.32.0", "0.33.0"]),
        failed=st.booleans(),
        clear=st.booleans(),
    ),
    unique_by=lambda one: one.slot.partition,
    max_size=9,
)


@given(HALVES, st.integers(-2, 2), st.booleans())
def test_whatever_is_there_both_are_taken_or_none_and_nobody_leaves_who_may_not(
    halves: list[Half], priority: int, evict: bool
) -> None:
    found = pick(*halves, priority=priority, evict=evict)
    by_id = {one.slot.partition: one for one in halves}
    chosen = [by_id[slot] for slot, _ in found.halves]
    assert len({one.slot.partition for one in chosen}) in (0, 2)
    if not chosen:
        assert found.reason in (NONE, BUSY, NO_TWO_FREE)
        return
    prefill, decode = chosen
    assert prefill.slot.gpus <= decode.slot.gpus
    assert prefill.view.engine_version == decode.view.engine_version
    left = [one.slot.resident for one in chosen if one.slot.resident is not None]
    assert set(found.evicted) == {resident.deployment for resident in left}
    assert evict or not left
    for resident in left:
        assert resident.is_idle and resident.resident_s >= 30.0
        assert resident.lent or resident.priority <= priority
    free = [one for one in halves if one.slot.resident is None]
    if left:
        assert not taken(*free), "nobody leaves where two are free"
