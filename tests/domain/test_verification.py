"""Which engines are used while some of them have not answered yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.verification import Candidate, Standing, choose, judge, until_paired

UNKNOWN, GOOD, BAD = Standing.UNKNOWN, Standing.GOOD, Standing.BAD


def decode(id: int, standing: Standing, *, admitted: bool = False) -> Candidate:
    return Candidate(id, True, admitted, standing)


def prefill(id: int, standing: Standing, *, admitted: bool = False) -> Candidate:
    return Candidate(id, False, admitted, standing)


def used(*candidates: Candidate) -> set[int]:
    return set(choose(candidates).use)


class TestChoose:
    def test_a_new_engine_is_not_used_while_another_serves(self) -> None:
        assert used(decode(1, GOOD), decode(2, UNKNOWN)) == {1}

    def test_a_new_engine_is_used_when_nobody_else_serves(self) -> None:
        chosen = choose([decode(1, UNKNOWN), decode(2, UNKNOWN)])
        assert chosen.use == chosen.admit == {1, 2}

    def test_one_that_failed_is_used_only_when_there_is_no_other(self) -> None:
        assert used(decode(1, BAD), decode(2, UNKNOWN)) == {2}
        chosen = choose([decode(1, BAD)])
        assert (chosen.use, chosen.admit) == ({1}, set())

    def test_one_that_served_and_fails_leaves_when_another_serves(self) -> None:
        assert used(decode(1, BAD, admitted=True), decode(2, GOOD, admitted=True)) == {2}

    def test_one_that_serves_untried_stays_while_others_turn_out_good(self) -> None:
        assert used(decode(1, UNKNOWN, admitted=True), decode(2, GOOD)) == {1, 2}

    def test_a_prefill_engine_waits_for_decode_can_do_without_it(self) -> None:
        assert used(decode(1, GOOD), prefill(2, UNKNOWN)) == {1}
        assert used(decode(1, UNKNOWN), prefill(2, UNKNOWN)) == {1}
        assert used(decode(1, GOOD), prefill(2, BAD, admitted=True)) == {1}

    def test_prefill_engines_alone_are_used(self) -> None:
        """They can answer too where they are started like decode engines."""
        assert used(prefill(1, UNKNOWN), prefill(2, BAD)) == {1}
        assert used(prefill(2, BAD)) == {2}

    @given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(Standing)), max_size=6))
    def test_somebody_answers_whenever_somebody_could(self, rows: list[tuple[bool, bool, Standing]]) -> None:
        candidates = [Candidate(i, *row) for i, row in enumerate(rows)]
        chosen = choose(candidates)
        answering = {c.id for c in candidates if c.answers}
        assert chosen.admit <= chosen.use
        assert bool(chosen.use & answering) == bool(answering)
        assert bool(chosen.use) == bool(candidates)
        assert {c.id for c in candidates if c.standing is GOOD} <= chosen.use


class TestJudge:
    @pytest.mark.parametrize(
        ("results", "standing"),
        [
            ([], UNKNOWN),
            ([None], UNKNOWN),
            ([True, None], UNKNOWN),
            ([True], GOOD),
            ([False], BAD),
            ([True, True, False], GOOD),
            ([True, False], BAD),
        ],
    )
    def test_a_new_engine_passes_more_than_it_fails(self, results: list[bool | None], standing: Standing) -> None:
        assert judge(results, admitted=False) is standing

    @pytest.mark.parametrize(
        ("results", "standing"),
        [
            ([True, None], GOOD),
            ([True, None, None], UNKNOWN),
            ([True, True, False, None], GOOD),
            ([False, None], UNKNOWN),
        ],
    )
    def test_in_a_hurry_half_of_them_will_do(self, results: list[bool | None], standing: Standing) -> None:
        assert judge(results, admitted=False, hurry=True) is standing

    @pytest.mark.parametrize(
        ("results", "standing"),
        [
            ([None, None], UNKNOWN),
            ([False, None], UNKNOWN),
            ([False, False], BAD),
            ([False, True], GOOD),
            ([None, True], GOOD),
        ],
    )
    def test_one_that_serves_needs_any(self, results: list[bool | None], standing: Standing) -> None:
        assert judge(results, admitted=True) is standing


class TestPairs:
    def use(self, *candidates: Candidate, paired: tuple[int, ...] = ()) -> set[int]:
        halves = [[c for c in candidates if c.answers is answers] for answers in (False, True)]
        chosen = until_paired(choose(candidates), *halves, paired)
        assert chosen.admit <= chosen.use
        return set(chosen.use)

    def test_one_half_alone_is_not_used(self) -> None:
        assert self.use(decode(1, GOOD)) == self.use(prefill(2, GOOD)) == self.use() == set()

    def test_two_that_were_not_tried_together_are_not_used(self) -> None:
        assert self.use(decode(1, UNKNOWN), prefill(2, UNKNOWN)) == set()
        assert self.use(decode(1, GOOD), prefill(2, GOOD)) == {1, 2}

    def test_a_decode_engine_that_was_used_in_a_pair_goes_on_alone(self) -> None:
        assert self.use(decode(1, GOOD, admitted=True), paired=(1,)) == {1}
        assert self.use(decode(1, GOOD, admitted=True), prefill(2, UNKNOWN), paired=(1,)) == {1}

    def test_where_the_pair_is_bad_decode_serves_alone(self) -> None:
        assert self.use(decode(1, BAD), prefill(2, BAD)) == {1}
        assert self.use(decode(1, UNKNOWN), prefill(2, BAD), prefill(3, UNKNOWN)) == set()
