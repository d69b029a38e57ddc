"""Which engines serve a request. Pure: literals and properties."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.routing import Most, Path, Ready, Route, affinity, has_room, pick, pick_decode

IDS = st.lists(st.integers(1, 60), unique=True, max_size=12)
LOADS = st.dictionaries(st.integers(1, 60), st.integers(0, 5))
SETS = st.sets(st.integers(1, 60), max_size=10)
PREFIX = st.integers(0, 2**32 - 1)


def test_the_least_loaded_of_each_role_make_the_pair() -> None:
    ready = Ready(prefill=(1, 2), decode=(3, 4))
    assert pick(ready, {1: 2, 2: 1, 3: 0, 4: 5}) == Route(Path.TWO_STEP, 3, prefill=2)


def test_among_equals_the_prefix_decides_and_always_alike() -> None:
    ready = Ready(prefill=(1, 2, 3), decode=(4, 5, 6))
    routes = {prefix: pick(ready, {}, prefix=prefix) for prefix in range(200)}
    assert routes == {prefix: pick(ready, {}, prefix=prefix) for prefix in range(200)}
    assert len(set(routes.values())) == 9


def test_load_weighs_more_than_the_prefix() -> None:
    ready = Ready(decode=(1, 2))
    home = pick(ready, {}, prefix=7)
    assert home is not None
    assert pick(ready, {home.engine: 1}, prefix=7) != home


def test_nothing_ready_is_no_route() -> None:
    assert pick(Ready(), {}) is None
    assert pick(Ready(prefill=(1,)), {}) is None, "a prefill engine answers nobody"


def test_a_prefill_engine_like_the_decode_engines_answers_when_nobody_else_can() -> None:
    alike = Ready(prefill=(1, 2), decode=(3,), alike=True)
    assert pick(alike, {1: 1}, failed={3}) == Route(Path.DIRECT, 2)
    assert pick(alike, {3: 9}) == Route(Path.TWO_STEP, 3, prefill=pick(alike, {}).prefill)  # type: ignore[union-attr]
    assert pick(alike, {}, suspect={3}).engine == 3, "a decode engine under suspicion comes first"  # type: ignore[union-attr]
    assert pick(alike, {}, failed={1, 2, 3}) is None
    assert pick(Ready(prefill=(1,), aggregated=(4,), alike=True), {}) == Route(Path.AGGREGATED, 4)


def test_a_route_has_room_while_each_of_its_engines_has() -> None:
    ready = Ready(prefill=(1,), decode=(2,), aggregated=(3,), alike=True)
    pair, direct, resort = Route(Path.TWO_STEP, 2, prefill=1), Route(Path.DIRECT, 2), Route(Path.DIRECT, 1)
    most = Most(prefill=1, decode=2)
    assert has_room(pair, ready, {2: 1}, most)
    assert not has_room(pair, ready, {1: 1}, most)
    assert not has_room(pair, ready, {2: 2}, most)
    assert has_room(direct, ready, {1: 5, 2: 1}, most)
    assert not has_room(direct, ready, {2: 2}, most)
    assert not has_room(resort, ready, {1: 1}, most), "it is still a prefill engine"
    assert has_room(pair, ready, {1: 9, 2: 1}, Most(decode=2))
    assert has_room(Route(Path.AGGREGATED, 3), ready, {3: 99}, most)


def test_without_transfer_or_without_prefill_decode_does_it_all() -> None:
    assert pick(Ready((1,), (2,)), {}, transfer=False) == Route(Path.DIRECT, 2)
    assert pick(Ready((), (2,)), {}) == Route(Path.DIRECT, 2)
    assert pick(Ready((1,), (2,)), {}, failed={1}) == Route(Path.DIRECT, 2)


def test_an_aggregated_engine_is_taken_when_it_is_less_loaded_than_decode() -> None:
    ready = Ready(prefill=(1,), decode=(2,), aggregated=(3,))
    assert pick(ready, {2: 1}) == Route(Path.AGGREGATED, 3)
    assert pick(ready, {3: 1}) == Route(Path.TWO_STEP, 2, prefill=1)
    assert pick(ready, {}) == Route(Path.TWO_STEP, 2, prefill=1)


def test_a_suspect_is_the_last_choice_but_one() -> None:
    ready = Ready(decode=(1, 2))
    assert pick(ready, {2: 9}, suspect={1}) == Route(Path.DIRECT, 2)
    assert pick(ready, {}, suspect={1, 2}, failed={2}) == Route(Path.DIRECT, 1)


@given(prefill=IDS, decode=IDS, aggregated=IDS, load=LOADS, failed=SETS, suspect=SETS, prefix=PREFIX)
def test_a_route_is_of_ready_engines_only_and_missing_only_when_none_can_answer(
    prefill: list[int], decode: list[int], aggregated: list[int],
    load: dict[int, int], failed: set[int], suspect: set[int], prefix: int,
) -> None:  # fmt: skip
    ready = Ready(tuple(prefill), tuple(decode), tuple(aggregated))
    route = pick(ready, load, prefix=prefix, failed=failed, suspect=suspect)
    able = {*decode, *aggregated} - failed
    if route is None:
        assert not able
        return
    pool = {*(aggregated if route.path == Path.AGGREGATED else decode)} - failed
    assert route.engine in pool
    trusted = able - suspect
    assert route.engine in trusted or not trusted
    best = trusted or able
    assert load.get(route.engine, 0) == min(load.get(engine, 0) for engine in best)
    if route.prefill is not None:
        assert route.path == Path.TWO_STEP
        assert route.prefill in {*prefill} - failed
    elif route.path == Path.DIRECT:
        assert not {*prefill} - failed


def test_a_decode_alone_is_picked_as_with_a_prefill() -> None:
    ready = Ready((1,), (2, 3, 4), (5,))
    assert pick_decode(ready, {2: 1, 3: 2, 4: 1}, failed={2}) == 4
    assert pick_decode(ready, {}, failed={2, 3}, suspect={4}) == 4
    assert pick_decode(ready, {}, failed={2, 3, 4}) is None


@given(engines=st.lists(st.integers(1, 10_000), unique=True, min_size=2, max_size=8), prefix=PREFIX)
def test_an_engine_that_leaves_moves_only_its_own_prefixes(engines: list[int], prefix: int) -> None:
    before = pick(Ready(decode=tuple(engines)), {}, prefix=prefix)
    assert before is not None
    gone = next(engine for engine in engines if engine != before.engine)
    after = pick(Ready(decode=tuple(engine for engine in engines if engine != gone)), {}, prefix=prefix)
    assert after == before


def test_prefixes_spread_evenly() -> None:
    homes = Counter(max((1, 2, 3, 4), key=lambda engine: affinity(prefix, engine)) for prefix in range(4000))
    assert all(800 < count < 1200 for count in homes.values())


def test_overflow_serves_only_what_the_others_have_no_room_for() -> None:
    ready, most = Ready(prefill=(1,), decode=(2, 3), overflow=(9,)), Most(decode=2)
    assert pick(ready, {2: 1, 3: 2, 9: 0}, most=most) == Route(Path.TWO_STEP, 2, prefill=1)
    assert pick(ready, {2: 2, 3: 2, 9: 7}, most=most) == Route(Path.OVERFLOW, 9)
    assert pick(ready, {1: 1}, most=Most(prefill=1)) == Route(Path.OVERFLOW, 9), "a full prefill engine is enough"
    assert pick(ready, {2: 90, 3: 90}) == Route(Path.TWO_STEP, pick(Ready(decode=(2, 3)), {}).engine, prefill=1), (  # type: ignore[union-attr]
        "without a limit they are never full"
    )
    assert pick(Ready(overflow=(9,)), {9: 90}) == Route(Path.OVERFLOW, 9), "and when there are no others"


def test_overflow_that_is_full_too_leaves_the_request_to_the_line_of_the_others() -> None:
    ready, most = Ready(aggregated=(1,), overflow=(9,)), Most(aggregated=2)
    route = pick(ready, {1: 2, 9: 2}, most=most)
    assert route == Route(Path.AGGREGATED, 1)
    assert not has_room(route, ready, {1: 2, 9: 2}, most)
    assert has_room(Route(Path.OVERFLOW, 9), ready, {9: 1}, most)


def test_overflow_is_used_instead_of_an_engine_under_suspicion() -> None:
    ready = Ready(aggregated=(1,), overflow=(9,))
    assert pick(ready, {}, suspect={1}) == Route(Path.OVERFLOW, 9)
    assert pick(ready, {}, suspect={1, 9}) == Route(Path.AGGREGATED, 1)
    assert pick(ready, {}, failed={1}) == Route(Path.OVERFLOW, 9)
    assert pick(ready, {}, failed={9}) == Route(Path.AGGREGATED, 1)


def test_of_two_kinds_the_one_with_room_is_chosen() -> None:
    ready, most = Ready(decode=(1,), aggregated=(2,)), Most(decode=9, aggregated=2)
    assert pick(ready, {1: 5, 2: 2}, most=most) == Route(Path.DIRECT, 1)
    assert pick(ready, {1: 5, 2: 1}, most=most) == Route(Path.AGGREGATED, 2)
