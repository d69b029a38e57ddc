"""Which decode engines are restarted once their prefill partner was replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.recycling import recycles, to_recycle
from controlplane.domain.types import DeviceView, PartitionView, Phase, Role

NIXL = "NixlConnector"
DECODE = PartitionView(
    id=2, node_name="n1", name="p1", gpus=(DeviceView("u", 0, name="NVIDIA H100"),), deployment="llama",
    role=Role.DECODE, phase=Phase.READY, engine_version="0.25.1",
)  # fmt: skip
PREFILL = replace(DECODE, id=1, name="p0", role=Role.PREFILL)


@pytest.mark.parametrize(
    ("version", "must"),
    [
        ("0.24.9", False),
        ("0.25.0", True),
        ("0.25.1+cu129", True),
        ("v0.26.1rc1.dev77+g6f91edf96", True),
        ("0.31.4", True),
        ("0.32", False),
        ("0.32.0", False),
        ("1.0.0", False),
        ("simulated", False),
        ("", False),
    ],
)
def test_the_versions_that_crash_on_a_restarted_prefill_are_restarted(version: str, must: bool) -> None:
    found = recycles(replace(DECODE, engine_version=version), NIXL)
    assert (found is not None) is must


def test_the_reason_names_the_engine_and_its_version() -> None:
    found = recycles(DECODE, NIXL)
    assert found is not None
    assert (found.partition, found.name) == (2, "n1/p1")
    assert "n1/p1" in found.text and "0.25.1" in found.text


def test_of_another_connector_nothing_is_known() -> None:
    assert recycles(DECODE, "LMCacheConnectorV1") is None


def test_devices_that_keep_the_memory_of_the_dead_are_told_apart() -> None:
    decode = replace(DECODE, engine_version="0.32.0")
    assert recycles(decode, NIXL) is None
    on_fabric = replace(decode, gpus=(DeviceView("u", 0, name="NVIDIA GB200"),))
    found = recycles(on_fabric, NIXL)
    assert found is not None and "memory" in found.text


def test_only_decode_partners_with_a_process_are_restarted() -> None:
    peers = [
        PREFILL,
        DECODE,
        replace(DECODE, id=3, name="p2", phase=None),
        replace(DECODE, id=4, name="p3", deployment="other"),
        replace(PREFILL, id=5, name="p4"),
        replace(DECODE, id=6, name="p5", engine_version="0.32.0"),
    ]
    assert [one.partition for one in to_recycle(PREFILL, NIXL, peers)] == [2]


@pytest.mark.parametrize(
    "prefill", [replace(PREFILL, role=Role.DECODE), replace(PREFILL, deployment=None), replace(PREFILL, phase=None)]
)
def test_what_was_no_prefill_engine_leaves_nothing_behind(prefill: PartitionView) -> None:
    assert to_recycle(prefill, NIXL, [DECODE]) == []
