"""AIConfigurator's reference cases, from its steps as a profile import reads them."""

from __future__ import annotations

import gzip

import pytest

from bench import _reference as reference
from controlplane.domain import saturation
from controlplane.planning.aiconfigurator import parse


@pytest.fixture(scope="module")
def compared() -> dict[str, float]:
    return reference.compare()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_by_its_rules_disaggregated_comes_out_as_it_says_for_a_dense_model(
    compared: dict[str, float], place: int
) -> None:
    assert compared[f"case{place}_its_apart"] == pytest.approx(reference.CASES[place].apart, rel=0.005)


@pytest.mark.parametrize("place", range(4))
def test_by_its_rules_all_cases_come_close(compared: dict[str, float], place: int) -> None:
    case = reference.CASES[place]
    assert compared[f"case{place}_its_both"] == pytest.approx(case.both, rel=0.1)
    assert compared[f"case{place}_its_apart"] == pytest.approx(case.apart, rel=0.12)


def test_a_fixed_pair_is_worth_less_than_half_of_what_prompts_together_and_free_counts_give(
    compared: dict[str, float],
) -> None:
    assert compared["fixed_its"] == pytest.approx(reference.FIXED_TOLD, rel=0.01)
    assert compared["fixed_its"] < 0.5 * reference.CASES[3].both
    assert compared["fixed_our"] > 1.5 * compared["fixed_its"]


def test_more_prompts_a_step_serve_more_and_a_law_of_experts_meets_its_points() -> None:
    with gzip.open(reference.TABLE, "rt", newline="") as file:
        profiles, _ = parse("the table", file)
    case = reference.CASES[3]
    [profile] = [one for one in profiles if one.model == case.model.name and one.tp == 4]
    one = reference.of(profile, case)
    rates = [saturation.prompts_per_s(one, case.load, prompts) for prompts in (1, 2, 4)]
    assert rates == sorted(rates) and rates[-1] > 1.3 * rates[0]
    off = [
        abs(one.decode.law.itl_ms(point.concurrency, point.context) / point.itl_ms - 1.0) for point in profile.decode
    ]
    assert max(off) < 0.06 < one.decode.worst_error, "a line of the number of sequences is far off, its bends are not"
