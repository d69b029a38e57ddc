from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.allotment import Place, Want, Worth, allot
from controlplane.domain.rollout import Lane
from workers.contract import Role

P, D = (1, Role.PREFILL), (1, Role.DECODE)
OTHER = (2, Role.AGGREGATED)


def want(lane: Lane, count: int, wanted: int, **more: object) -> Want:
    return Want(lane, count, wanted, "why", **more)  # type: ignore[arg-type]


def place(partition: int, lane: Lane | None = None, memory: int = 80, in_flight: float = 0.0) -> Place:
    return Place(partition, memory, lane, ready=lane is not None, in_flight=in_flight)


def moved(*args: object, **more: object) -> dict[int, Lane | None]:
    found = allot(*args, **more)  # type: ignore[arg-type]
    return {given.move.partition: given.move.lane for given in found.moves}


def test_too_many_of_one_role_become_the_other_before_anything_else_is_taken() -> None:
    places = [place(1, P, in_flight=3.0), place(2, P), place(3)]
    assert moved([want(P, 2, 1), want(D, 0, 1)], places, {D: {1, 2, 3}}) == {2: D}


def test_an_engine_that_stays_is_taken_before_one_that_starts_anew() -> None:
    places = [place(1, P), place(2, P)]
    assert moved([want(P, 2, 1), want(D, 0, 1)], places, {D: {1, 2}}, {(2, D)}) == {2: D}


def test_of_free_partitions_the_smallest_that_holds_it_is_taken() -> None:
    places = [place(1, memory=80), place(2, memory=40), place(3, memory=24)]
    assert moved([want(D, 0, 1)], places, {D: {1, 2}}) == {2: D}


def test_of_free_partitions_the_cheapest_for_its_work_is_taken_and_that_is_told() -> None:
    places = [place(1, memory=40), place(2, memory=80), place(3, memory=24)]
    worths = {
        (1, D): Worth(0.5, "1 x A100 at 2"),
        (2, D): Worth(0.4, "1 x H100 at 4"),
        (3, D): Worth(math.inf, "1 x L4"),
    }
    found = allot([want(D, 0, 2)], places, {D: {1, 2, 3}}, worths=worths)
    assert [given.move.partition for given in found.moves] == [2, 1]
    assert [given.why for given in found.moves] == [
        "why; on 1 x H100 at 4, 0.4 for 1,000 requests at most load (1 x A100 at 2: 0.5)",
        "why; on 1 x A100 at 2, 0.5 for 1,000 requests at most load (1 x L4: would not keep the objectives)",
    ]


def test_prices_decide_only_where_all_of_them_are_known() -> None:
    places = [place(1, memory=40), place(2, memory=80)]
    found = allot([want(D, 0, 1)], places, {D: {1, 2}}, worths={(2, D): Worth(0.1, "1 x H100 at 4")})
    assert [(given.move.partition, given.why) for given in found.moves] == [(1, "why")]


def test_what_others_have_too_many_of_is_taken_last_and_what_nobody_takes_is_released() -> None:
    places = [place(1, OTHER), place(2, OTHER), place(3, OTHER, in_flight=9.0)]
    assert moved([want(D, 0, 1), want(OTHER, 3, 1)], places, {D: {1, 2, 3}}) == {1: D, 2: None}


def test_who_presses_takes_from_lower_priorities_down_to_their_least() -> None:
    places = [place(1, OTHER), place(2, OTHER)]
    high = want(D, 0, 3, priority=5, now=True)
    found = allot([high, want(OTHER, 2, 2, least=1)], places, {D: {1, 2}})
    assert [given.move.partition for given in found.moves] == [1]
    assert found.short == {D: 2}
    for calm in (want(D, 0, 1, priority=5), want(D, 0, 1, now=True)):
        assert moved([calm, want(OTHER, 2, 2, least=1)], places, {D: {1, 2}}) == {}


lane_keys = st.tuples(st.integers(1, 3), st.sampled_from(Role))


@given(st.data())
def test_nothing_is_moved_twice_or_where_it_does_not_fit_and_nobody_loses_what_is_wanted(data: st.DataObject) -> None:
    keys = data.draw(st.lists(lane_keys, unique=True, min_size=1, max_size=5))
    homes = data.draw(st.lists(st.sampled_from([None, *keys]), max_size=10))
    places = [place(number, home, memory=data.draw(st.integers(1, 3))) for number, home in enumerate(homes)]
    wants = [
        Want(key, homes.count(key), data.draw(st.integers(0, 5)), "why", priority=data.draw(st.integers(0, 1)))
        for key in keys
    ]
    fits = {key: data.draw(st.sets(st.integers(0, 10))) for key in keys}
    worths = {
        (number, key): Worth(data.draw(st.floats(0, 9)), "it")
        for number in range(len(homes))
        for key in keys
        if data.draw(st.booleans())
    }
    found = allot(wants, places, fits, worths=worths)
    partitions = [given.move.partition for given in found.moves]
    assert len(set(partitions)) == len(partitions)
    after = dict(enumerate(homes)) | {given.move.partition: given.move.lane for given in found.moves}
    for one in found.moves:
        assert one.move.lane is None or one.move.partition in fits[one.move.lane]
    for one in wants:
        has = list(after.values()).count(one.lane)
        assert has >= min(one.count, one.wanted)
        assert has + found.short.get(one.lane, 0) == max(one.wanted, has)
