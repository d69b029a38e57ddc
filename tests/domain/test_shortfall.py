"""By how much engines of one kind miss objectives that no number of them keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain import shortfall, size_search, sizing
from controlplane.domain.fitting import speed
from controlplane.domain.profiles import Speed
from controlplane.domain.sizing import Offer, Slo
from tests.domain.test_sizing import made, poisson


@pytest.fixture(scope="module")
def fast() -> Speed:
    return speed(made())


def test_it_is_told_of_what_comes_nearest_on_all_of_the_gpus(fast: Speed) -> None:
    trace, slo, offers = poisson(30.0, 60.0, isl=1500, osl=100), Slo(600.0, 12.0), [Offer(fast, 8)]
    assert size_search.fewest(trace, offers, slo, apart=False) is None
    assert size_search.fewest(trace, offers, slo, apart=True) is not None
    best = shortfall.nearest(trace, offers, slo, apart=False)
    assert best is not None and best.size.prefill is None and best.size.gpus == 8
    assert best.met == sizing.judge(trace, best.size, slo).met < slo.share
    assert best.ttft_ms < 600.0 < 1e3 * best.itl_ms
    assert shortfall.told(best, slo) == f"ITL of 12 ms by {best.itl_ms - 12.0:.2g} ms"


def test_of_pairs_several_divisions_are_tried_and_both_objectives_are_told(fast: Speed) -> None:
    trace, slo = poisson(30.0, 60.0, isl=1500, osl=100), Slo(600.0, 25.0)
    best = shortfall.nearest(trace, [Offer(fast, 2)], slo, apart=True)
    assert best is not None and best.size.prefill is not None and best.size.gpus == 2
    assert shortfall.told(best, slo).startswith("TTFT of 600 ms by ") and " and ITL of 25 ms by " in shortfall.told(
        best, slo
    )


def test_where_there_is_no_room_for_a_pair_nothing_is_told(fast: Speed) -> None:
    trace = poisson(5.0, 10.0)
    assert shortfall.nearest(trace, [Offer(fast, 1)], Slo(600.0, 25.0), apart=True) is None
    assert shortfall.nearest(trace, [Offer(fast, 0)], Slo(600.0, 25.0), apart=False) is None


def test_objectives_that_are_each_kept_but_not_together_are_told_by_their_share() -> None:
    judged = sizing.Judged(None, 0.91, 500.0, 11.0)  # type: ignore[arg-type]
    assert shortfall.told(judged, Slo(600.0, 12.0)) == "one or the other for 9.0% of requests"


@pytest.mark.parametrize("order", [1, -1])
def test_where_none_serves_a_request_within_them_it_is_what_misses_them_by_least(fast: Speed, order: int) -> None:
    laws = made()
    slow = speed(replace(laws, gpu="slow", decode=tuple(replace(one, itl_ms=5 * one.itl_ms) for one in laws.decode)))
    trace, slo = poisson(30.0, 60.0, isl=1500, osl=100), Slo(600.0, 1.0)
    best = shortfall.nearest(trace, [Offer(slow, 8), Offer(fast, 8)][::order], slo, apart=False)
    assert best is not None and best.met == 0.0
    assert best.size.decode.offer.speed is fast
