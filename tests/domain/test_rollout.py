"""The order of moves: what comes first, what waits, and that the way always ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain.rollout import (
    Blocked,
    Cost,
    Move,
    Place,
    Step,
    after,
    answers,
    next_step,
    pending,
    steps,
)
from workers.contract import Role

P, D, A = Role.PREFILL, Role.DECODE, Role.AGGREGATED


def places(
    *entries: tuple[int, int | None, Role | None] | tuple[int, int | None, Role | None, bool],
) -> dict[int, Place]:
    """(partition, deployment, role[, serving]); assigned ones serve unless said otherwise."""
    made = [
        Place(entry[0], entry[1], entry[2], serving=entry[3] if len(entry) > 3 else entry[1] is not None)
        for entry in entries
    ]
    return {place.partition: place for place in made}


def order(now: Mapping[int, Place], target: Sequence[Move], **more: object) -> list[tuple[int, Cost]]:
    taken, blocked = steps(now, target, **more)
    assert blocked is None
    return [(step.move.partition, step.cost) for step in taken]


def test_an_idle_partition_is_filled_before_a_busy_one_is_emptied() -> None:
    now = places((1, 7, D), (2, None, None))
    assert order(now, [Move(1, None, None), Move(2, 7, D)]) == [(2, Cost.FILL), (1, Cost.SAFE)]


def test_a_relabel_comes_before_a_replacement_and_a_release_comes_last() -> None:
    now = places((1, 7, D), (2, 7, D), (3, 7, D), (4, 7, D), (9, 7, P))
    target = [Move(1, None, None), Move(2, 8, D), Move(3, 7, P)]
    assert [partition for partition, _ in order(now, target, quick={3})] == [3, 2, 1]


def test_roles_are_swapped_over_the_engine_that_decodes() -> None:
    """Prefill goes first: decode engines serve whole requests, prefill engines alone answer nobody."""
    now = places((1, 7, P), (2, 7, D))
    assert order(now, [Move(1, 7, D), Move(2, 7, P)]) == [(1, Cost.ROLE_GAP), (2, Cost.SAFE)]


def test_the_last_engine_that_answers_stays_until_another_serves() -> None:
    now = places((1, 7, A), (2, None, None, False), (3, None, None, False))
    assert order(now, [Move(1, None, None), Move(2, 7, P), Move(3, 7, D)])[-1] == (1, Cost.LAST)


def test_a_move_that_leaves_a_deployment_unserved_is_blocked_unless_it_is_accepted() -> None:
    now = places((1, 7, A))
    target = [Move(1, 7, D)]
    assert next_step(now, target) == Blocked(tuple(target), ((7, A),))
    assert next_step(now, target, may_stop=True) == Step(target[0], Cost.OUTAGE)


def test_what_does_not_serve_may_go_at_any_time() -> None:
    now = places((1, 7, D, False), (2, 7, D))
    assert next_step(now, [Move(1, None, None)]) == Step(Move(1, None, None), Cost.SAFE)
    now = places((1, 7, P), (2, 7, D, False))
    assert next_step(now, [Move(1, 7, D)]) == Step(Move(1, 7, D), Cost.SAFE), "it heals what is not served as it is"


def test_a_peer_that_does_not_serve_does_not_count() -> None:
    now = places((1, 7, D), (2, 7, D, False))
    assert isinstance(next_step(now, [Move(1, 7, P)]), Blocked)


def test_a_whole_deployment_may_be_ended() -> None:
    now = places((1, 7, P), (2, 7, D))
    assert {cost for _, cost in order(now, [Move(1, None, None), Move(2, None, None)], may_stop=False)} == {Cost.LAST}


def test_what_the_pool_lends_is_no_peer_and_leaves_no_role() -> None:
    now = places((1, 7, A)) | {2: Place(2, 7, A, serving=True, lent=True)}
    assert next_step(now, [Move(1, None, None)]) == Step(Move(1, None, None), Cost.LAST)
    assert isinstance(next_step(now, [Move(1, 7, D)]), Blocked), "the pool may take it back meanwhile"
    assert next_step(now, [Move(2, 8, D)]) == Step(Move(2, 8, D), Cost.FILL)


def test_nothing_is_left_to_do_where_all_is_as_wanted() -> None:
    now = places((1, 7, D))
    assert next_step(now, [Move(1, 7, D)]) is None
    assert pending(now, [Move(1, 7, D)]) == []


LANES = st.one_of(st.just((None, None)), st.tuples(st.sampled_from([7, 8]), st.sampled_from([P, D, A])))


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[int, Place], list[Move], set[int]]:
    count = draw(st.integers(1, 7))
    now = {}
    for number in range(count):
        deployment, role = draw(LANES)
        now[number] = Place(number, deployment, role, serving=deployment is not None and draw(st.booleans()))
    moved = draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    target = [Move(number, *draw(LANES)) for number in moved]
    return now, target, set(draw(st.lists(st.integers(0, count - 1), unique=True)))


@settings(max_examples=400)
@given(histories())
def test_the_way_ends_each_move_is_made_once_and_nobody_is_left_unserved(
    history: tuple[dict[int, Place], list[Move], set[int]],
) -> None:
    now, target, quick = history
    wanted = pending(now, target)
    made: list[Move] = []
    while isinstance(step := next_step(now, target, quick=quick), Step):
        before, move = dict(now), step.move
        now[move.partition] = Place(move.partition, move.deployment, move.role, serving=move.lane is not None)
        gone = {key: place for key, place in now.items() if key != move.partition}  # while the step is under way
        for deployment in {place.deployment for place in before.values()} - {None}:
            ends = not answers(after(before, target).values(), deployment)
            if answers(before.values(), deployment) and not ends:
                assert answers(gone.values(), deployment), "requests are answered during each step"
        if (lane := before[move.partition].lane) and step.cost is Cost.SAFE and before[move.partition].serving:
            left = any(place.serving and place.lane == lane for place in gone.values())
            assert left or not answers(before.values(), lane[0]), "a safe step leaves the role served"
        made.append(move)
        assert len(made) <= len(wanted)
    if step is None:
        assert sorted(made, key=lambda move: move.partition) == sorted(wanted, key=lambda move: move.partition)
    else:
        assert step.moves and step.lanes


@settings(max_examples=300)
@given(histories())
def test_the_way_back_restores_what_was_there(history: tuple[dict[int, Place], list[Move], set[int]]) -> None:
    start, target, quick = history
    back = [Move(move.partition, start[move.partition].deployment, start[move.partition].role) for move in target]
    there, blocked = steps(start, target, quick=quick, may_stop=True)
    assert blocked is None
    now = dict(start)
    for step in there[: len(there) // 2 + 1]:  # somewhere on the way it is called back
        move = step.move
        now[move.partition] = Place(move.partition, move.deployment, move.role, serving=move.lane is not None)
    homeward, blocked = steps(now, back, quick=quick, may_stop=True)
    assert blocked is None
    for step in homeward:
        now[step.move.partition] = Place(step.move.partition, step.move.deployment, step.move.role, serving=True)
    assert {key: place.lane for key, place in now.items()} == {key: place.lane for key, place in start.items()}
