"""Factories of the domain's values, with sensible defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane.domain.model_facts import from_config
from controlplane.domain.placement import check
from controlplane.domain.types import DeploymentView, DeviceView, NodeView, PartitionView, Problem, Role
from tests.domain import configs

NOW = 1_800_000_000.0
SLOT_BYTES = 4 * 10**9


def make_gpu(index: int = 0, **keys: Any) -> DeviceView:
    values = {"uuid": f"GPU-{index}", "index": index, "memory_bytes": configs.H100_BYTES, "name": "H100", **keys}
    return DeviceView(**values)


def make_gpus(count: int, **keys: Any) -> tuple[DeviceView, ...]:
    return tuple(make_gpu(index, **keys) for index in range(count))


def make_linked_gpus(count: int, first: int = 0) -> tuple[DeviceView, ...]:
    """GPUs of one NVLink island."""
    uuids = [f"GPU-{index}" for index in range(first, first + count)]
    return tuple(
        make_gpu(first + number, peers=tuple(other for other in uuids if other != uuid))
        for number, uuid in enumerate(uuids)
    )


def make_slots(count: int) -> tuple[DeviceView, ...]:
    return make_gpus(count, kind="cpu", name="CPU slot", memory_bytes=SLOT_BYTES)


def make_node(name: str = "a", **keys: Any) -> NodeView:
    return NodeView(**{"name": name, "last_seen": NOW - 1, "engine_version": "0.32.0", **keys})


def make_partition(number: int = 1, gpus: int | Sequence[DeviceView] = 1, **keys: Any) -> PartitionView:
    devices = make_gpus(gpus) if isinstance(gpus, int) else tuple(gpus)
    values = {"id": number, "node_name": "a", "name": f"p{number}", "gpus": devices, "node_last_seen": NOW - 1,
              "engine_version": "0.32.0", **keys}  # fmt: skip
    return PartitionView(**values)


def make_deployment(
    config: dict[str, Any] | None = None, parameter_bytes: int | None = None, **keys: Any
) -> DeploymentView:
    """Served from SmolLM2 unless told otherwise."""
    if config is None:
        config, parameter_bytes = configs.SMOLLM2_135M, configs.SMOLLM2_BYTES
    return DeploymentView(**{"name": "chat", "facts": from_config(config, parameter_bytes), **keys})


def make_peer(role: Role, number: int = 9, gpus: int | Sequence[DeviceView] = 1, **keys: Any) -> PartitionView:
    """Another partition of the same deployment."""
    return make_partition(number, gpus, **{"deployment": "chat", "role": role, **keys})


def problems(
    partition: PartitionView | None = None,
    deployment: DeploymentView | None = None,
    role: Role = Role.DECODE,
    *,
    node: NodeView | None = None,
    peers: tuple[PartitionView, ...] = (),
) -> list[Problem]:
    return check(
        partition or make_partition(),
        deployment or make_deployment(),
        role,
        node=node or make_node(),
        peers=peers,
        now=NOW,
    )


def codes(*args: Any, **keys: Any) -> list[str]:
    return [problem.code for problem in problems(*args, **keys)]
