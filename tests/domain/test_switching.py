"""When a deployment goes from one kind of engines to the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.switching import CLEARLY, FOR_S, ONLY_FOR_S, REST_S, Compared, wanted
from workers.contract import Role

CLEAR = Compared(ratio=0.5, counts={Role.AGGREGATED: 1}, clear_s=FOR_S)


def test_a_clear_gain_that_has_been_there_for_hours_is_proposed_with_every_role() -> None:
    assert wanted(CLEAR) == {Role.PREFILL: 0, Role.DECODE: 0, Role.AGGREGATED: 1}


@pytest.mark.parametrize(
    "other",
    [
        {"ratio": None},
        {"ratio": CLEARLY + 0.01},
        {"counts": None},
        {"clear_s": FOR_S - 1},
        {"rested_s": REST_S - 1},
        {"bounds": {Role.AGGREGATED: (2, None)}},
        {"bounds": {Role.AGGREGATED: (0, 0)}},
        {"bounds": {Role.DECODE: (1, None)}},
    ],
)
def test_what_is_not_clear_or_not_allowed_is_not(other: dict[str, object]) -> None:
    assert wanted(replace(CLEAR, **other)) is None  # type: ignore[arg-type]


ONLY = Compared(ratio=None, counts={Role.PREFILL: 1, Role.DECODE: 2}, clear_s=ONLY_FOR_S, only=True)


def test_where_only_the_other_kind_keeps_the_objectives_it_is_proposed_sooner_and_whatever_it_costs() -> None:
    assert wanted(ONLY) == {Role.PREFILL: 1, Role.DECODE: 2, Role.AGGREGATED: 0}
    assert wanted(replace(ONLY, clear_s=ONLY_FOR_S - 1)) is None
    assert wanted(replace(ONLY, counts=None)) is None, "by a roofline alone"
    assert wanted(replace(ONLY, only=False)) is None
    assert wanted(replace(ONLY, rested_s=REST_S - 1)) is None
    assert wanted(replace(ONLY, bounds={Role.DECODE: (0, 1)})) is None


@given(st.floats(0.01, 3.0))
def test_one_that_was_switched_is_never_switched_back_at_the_same_prices(ratio: float) -> None:
    """The ratio of the way back is the inverse."""
    there, back = (wanted(replace(CLEAR, ratio=one)) for one in (ratio, 1.0 / ratio))
    assert there is None or back is None
