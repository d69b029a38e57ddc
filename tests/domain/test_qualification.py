"""What makes a GPU unfit: wrong results, or figures too far below those published and those of its siblings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.published import PUBLISHED, Published
from controlplane.domain.qualification import Bars, compare, judge
from workers.qualification import Figures, PeerRate, Soak

KNOWN = Published(bf16_tflops=1000, memory_gbs=3000)
rates = st.floats(0.1, 1e5)
fleets = st.lists(rates, max_size=9)


def figures(bf16: float | None = 700, memory: float | None = 2700, **more: object) -> Figures:
    return Figures(bf16_tflops=bf16, memory_gbs=memory, **more)


def codes(found: Figures, kind: str = "nvidia", **more: object) -> list[str]:
    return [finding.code for finding in judge(found, kind=kind, **more)]


def test_a_gpu_at_the_height_of_its_siblings_and_of_what_is_published_is_fit():
    assert codes(figures(), siblings=[figures(690), figures(710)], known=KNOWN) == []


def test_it_is_held_against_the_median_of_the_others_once_there_are_two():
    assert codes(figures(500), siblings=[figures(700)]) == []
    [finding] = judge(figures(500), kind="nvidia", siblings=[figures(690), figures(710)])
    assert finding.message == "bf16 matmul: 500 TFLOP/s is 71% of the median of 2 others (700)"
    assert codes(figures(500), siblings=[figures(690), figures(710)], bars=Bars(siblings=0.7)) == []


def test_it_is_held_against_what_is_published_of_its_kind():
    [finding] = judge(figures(599, 1900), kind="nvidia", known=KNOWN)
    assert finding.code == "below-published" and "60%" in finding.message
    assert codes(figures(599, 1700), known=KNOWN) == ["below-published", "below-published"]


def test_a_link_of_half_the_lanes_is_found_and_one_that_others_slow_down_is_not():
    others = [figures(to_device_gbs=50, peers=(PeerRate(uuid="b", gbs=300, direct=True),)) for _ in range(3)]
    assert codes(figures(to_device_gbs=30), siblings=others) == []
    slow = figures(to_device_gbs=24, peers=(PeerRate(uuid="b", gbs=20, direct=True),))
    assert codes(slow, siblings=others) == ["below-siblings", "below-siblings"]
    through_host = figures(to_device_gbs=50, peers=(PeerRate(uuid="b", gbs=20, direct=False),))
    assert codes(through_host, siblings=others) == []


@pytest.mark.parametrize("kind", ["nvidia", "mig", "cpu"])
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"wrong": 1}, "wrong-results"),
        ({"soak": Soak(seconds=30, drift=0.0, checks=60, mismatches=1)}, "corrupt-results"),
        ({"faults": ("bf16_rate: CUDA error: unspecified launch failure",)}, "fault"),
    ],
)
def test_wrong_results_speak_against_whatever_gave_them(kind, wrong, code):
    assert codes(figures(**wrong), kind) == [code]


def test_memory_errors_and_a_rate_that_falls_speak_against_a_gpu():
    assert codes(figures(), ecc_errors=2) == ["ecc-errors"] and codes(figures(), ecc_errors=0) == []
    hot = figures(soak=Soak(seconds=30, drift=0.2, checks=60, mismatches=0))
    assert codes(hot) == ["soak-drift"] and codes(hot, "cpu") == []


def test_a_cpu_slot_is_not_held_against_others_for_its_host_has_more_to_do():
    assert codes(figures(1, 1), "cpu", siblings=[figures(), figures()]) == []


def test_figures_that_were_not_measured_are_left_out_and_speak_against_nobody():
    assert codes(figures(None, None), siblings=[figures()] * 3, known=KNOWN) == []
    assert [one.key for one in compare(figures(None), [], KNOWN)] == ["memory_gbs"]
    [bf16, memory] = compare(figures(), [figures(None)] * 3, None)
    assert bf16.siblings is None and bf16.published is None and bf16.z is None and memory.siblings == 2700


def test_the_odd_one_out_stands_out_in_standard_deviations():
    [bf16, _] = compare(figures(500), [figures(value) for value in (690, 700, 710, 300)], KNOWN)
    assert bf16.z < -10 and bf16.of_published == 0.5


def test_published_figures_are_those_of_gpus_that_exist():
    assert PUBLISHED["NVIDIA H100 80GB HBM3"].bf16_tflops < PUBLISHED["NVIDIA B200"].bf16_tflops
    assert all(20 < p.bf16_tflops < 3000 and 200 < p.memory_gbs < 10_000 for p in PUBLISHED.values())


@given(value=rates, more=st.floats(1, 100), fleet=fleets)
def test_a_faster_gpu_is_never_judged_worse(value, more, fleet):
    siblings = [figures(other) for other in fleet]
    slow, fast = (codes(figures(v), siblings=siblings, known=KNOWN) for v in (value, value * more))
    assert set(fast) <= set(slow)


@given(value=rates, fleet=fleets, data=st.data())
def test_the_order_of_the_siblings_says_nothing(value, fleet, data):
    mixed = data.draw(st.permutations(fleet))
    assert judge(figures(value), kind="nvidia", siblings=[figures(v) for v in fleet]) == judge(
        figures(value), kind="nvidia", siblings=[figures(v) for v in mixed]
    )


@given(value=rates, count=st.integers(0, 9))
def test_among_equals_nobody_is_flagged(value, count):
    assert codes(figures(value), siblings=[figures(value)] * count) == []
