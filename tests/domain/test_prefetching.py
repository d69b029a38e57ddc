"""Which weights lie where before anybody asks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.prefetching import COPIES, LEAST, Candidate, Place, choose, likely_enough

BOTH = frozenset({1, 2})


def model(number: int, chance: float, *, bytes: int = 10, fits: frozenset[int] = BOTH) -> Candidate:
    return Candidate(number, bytes, chance, fits)


def place(node: int, room: int = 100, wishes: int = 9, **more: frozenset[int]) -> Place:
    return Place(node, room, wishes, **more)


def test_the_likeliest_come_first_and_lie_on_two_nodes() -> None:
    found = choose([model(7, 0.2), model(8, 0.9), model(9, 0.5)], [place(1, 20), place(2, 20), place(3, 20)])
    assert found == {1: {8: 0.9, 9: 0.5}, 2: {8: 0.9, 9: 0.5}, 3: {}}


def test_a_model_that_is_too_large_leaves_the_room_to_smaller_ones() -> None:
    assert choose([model(7, 0.9, bytes=50), model(8, 0.1)], [place(1, 40)]) == {1: {8: 0.1}}


def test_only_nodes_with_a_slot_that_holds_it() -> None:
    assert choose([model(7, 0.9, fits=frozenset({2, 5}))], [place(1), place(2)]) == {1: {}, 2: {7: 0.9}}


def test_it_stays_where_it_lies_or_is_wanted_already() -> None:
    places = [place(1, 999), place(2, 50, wanted=frozenset({7})), place(3, 5, free=frozenset({7}))]
    found = choose([model(7, 0.9, fits=frozenset({1, 2, 3}))], places)
    assert found == {1: {}, 2: {7: 0.9}, 3: {7: 0.9}}, "and what was not fetched takes no room"


def test_nodes_where_people_want_it_count_and_are_asked_no_second_time() -> None:
    places = [place(1, asked=frozenset({7})), place(2, 50), place(3, 60)]
    assert choose([model(7, 0.9, fits=frozenset({1, 2, 3}))], places) == {1: {}, 2: {}, 3: {7: 0.9}}


def test_a_hair_more_likely_displaces_nothing() -> None:
    there = [place(1, 10, wanted=frozenset({7}))]
    assert choose([model(7, 0.50), model(8, 0.55)], there) == {1: {7: 0.50}}
    assert choose([model(7, 0.50), model(8, 0.70)], there) == {1: {8: 0.70}}


def test_a_node_is_asked_for_no_more_than_it_may_be() -> None:
    assert choose([model(7, 0.9), model(8, 0.8)], [place(1, wishes=1)]) == {1: {7: 0.9}}


def test_the_unlikely_are_left_out_unless_they_are_wanted_and_not_much_less_likely() -> None:
    chances = {1: LEAST * 0.9, 2: LEAST * 0.9, 3: LEAST * 0.4, 4: LEAST, 5: 0.5}
    assert set(likely_enough(chances, {1, 3}, 9)) == {1, 4, 5}
    assert list(likely_enough(chances, {1, 3}, 1)) == [5]


CANDIDATES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 100), st.sets(st.integers(1, 4))), max_size=12).map(
    lambda found: [
        Candidate(number, bytes, chance / 100, frozenset(fits)) for number, (bytes, chance, fits) in enumerate(found)
    ]
)
PLACES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4), st.sets(st.integers(0, 11))), max_size=4).map(
    lambda found: [Place(node, room, wishes, frozenset(wanted)) for node, (room, wishes, wanted) in enumerate(found, 1)]
)


@given(CANDIDATES, PLACES)
def test_room_wishes_and_copies_are_kept_and_choosing_again_changes_nothing(
    candidates: list[Candidate], places: list[Place]
) -> None:
    found = choose(candidates, places)
    by_model = {one.model: one for one in candidates}
    for at in places:
        assert sum(by_model[number].bytes for number in found[at.node]) <= at.room_bytes
        assert len(found[at.node]) <= at.wishes
        assert all(at.node in by_model[number].fits for number in found[at.node])
    for number in by_model:
        assert sum(number in chosen for chosen in found.values()) <= COPIES
    settled = places
    for _ in range(4):  # what stays is weighed as likelier, which may move a few more
        chosen = choose(candidates, settled)
        settled = [Place(at.node, at.room_bytes, at.wishes, frozenset(chosen[at.node])) for at in settled]
    assert choose(candidates, settled) == chosen
