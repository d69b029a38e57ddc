"""Lawful splits of a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.partitions import PRESETS, preset, presets_for, validate_split
from controlplane.domain.types import DeviceView, DomainError
from tests.domain.views import make_gpu, make_gpus, make_slots


def codes(devices: tuple[DeviceView, ...], groups: list[list[int]]) -> list[str]:
    return [problem.code for problem in validate_split(devices, groups)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("8x1", [[0], [1], [2], [3], [4], [5], [6], [7]]),
        ("4x2", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("2x4", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("1x8", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_the_presets_of_an_eight_gpu_node(name: str, expected: list[list[int]]) -> None:
    assert name in PRESETS
    assert preset(name, 8) == expected


def test_other_nodes_have_their_own_presets() -> None:
    assert presets_for(8) == list(PRESETS)
    assert presets_for(2) == ["2x1", "1x2"]
    assert presets_for(6) == ["6x1", "3x2"]
    assert presets_for(0) == []


@pytest.mark.parametrize("name", ["8x1", "2x1", "x", "0x4", "-1x-4", "4X1", "", "1x4x1", "9999x1"])
def test_a_preset_that_does_not_use_the_node_up_is_refused(name: str) -> None:
    with pytest.raises(DomainError) as caught:
        preset(name, 4)

    assert "4x1, 2x2, 1x4" in caught.value.problem.fix


def test_a_preset_of_an_unlawful_size_is_refused() -> None:
    with pytest.raises(DomainError):
        preset("2x3", 6)


@given(st.integers(1, 64))
def test_every_preset_is_a_lawful_split_of_its_node(count: int) -> None:
    for name in presets_for(count):
        groups = preset(name, count)
        assert validate_split(make_gpus(count), groups) == []
        assert sorted(index for group in groups for index in group) == list(range(count))


def test_gpus_may_be_left_out() -> None:
    assert codes(make_gpus(8), [[0, 1], [6]]) == []


def test_a_gpu_lies_in_one_partition_only() -> None:
    assert codes(make_gpus(4), [[0, 1], [1, 2]]) == ["split-overlaps"]
    assert codes(make_gpus(4), [[0, 0]]) == ["split-overlaps"]


def test_an_empty_split_or_partition_is_refused() -> None:
    assert codes(make_gpus(4), []) == ["split-empty"]
    assert codes(make_gpus(4), [[0], []]) == ["partition-empty"]


def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert codes(make_gpus(4), [[4]]) == ["gpu-unknown"]
    assert codes(make_gpus(4), [[-1]]) == ["gpu-unknown"]


def test_a_lost_gpu_is_refused() -> None:
    gone = (make_gpu(0, present=False), make_gpu(1, health="lost", health_detail="fell off the bus"), make_gpu(2))

    assert codes(gone, [[0], [1], [2]]) == ["gpu-lost", "gpu-lost"]
    assert "fell off the bus" in validate_split(gone, [[1]])[0].message
    assert codes(gone, [[2]]) == []


@pytest.mark.parametrize("size", [3, 5, 6, 7])
def test_an_engine_spans_a_power_of_two(size: int) -> None:
    assert codes(make_gpus(8), [list(range(size))]) == ["tp-size"]


def test_cpu_slots_add_up_in_any_number() -> None:
    assert codes(make_slots(3), [[0, 1, 2]]) == []


def test_unequal_gpus_do_not_share_a_partition() -> None:
    mixed = (make_gpu(0), make_gpu(1, name="L4", memory_bytes=24 * 2**30))

    assert codes(mixed, [[0, 1]]) == ["gpu-kinds-mixed"]
    assert codes(mixed, [[0], [1]]) == []


def test_slices_of_a_gpu_stand_alone() -> None:
    slices = tuple(make_gpu(index, kind="mig", mig_parent="GPU-9") for index in range(2))

    assert codes(slices, [[0, 1]]) == ["mig-joined"]
    assert codes(slices, [[0], [1]]) == []


def test_a_gpu_is_not_used_whole_and_in_slices() -> None:
    devices = (make_gpu(0), make_gpu(1, kind="mig", mig_parent="GPU-0"))

    assert codes(devices, [[0], [1]]) == ["gpu-not-whole"]
    assert codes(devices, [[1]]) == []


@given(st.lists(st.lists(st.integers(-1, 9), max_size=9), max_size=9))
def test_what_passes_is_disjoint_whole_and_lawful(groups: list[list[int]]) -> None:
    if validate_split(make_gpus(8), groups):
        return
    flat = [index for group in groups for index in group]
    assert len(flat) == len(set(flat))
    assert set(flat) <= set(range(8))
    assert all(len(group) in (1, 2, 4, 8) for group in groups)
