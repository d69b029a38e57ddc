"""Rows as the frozen values that the domain's rules take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controlplane.domain.model_facts import ModelFacts
from controlplane.domain.types import DeploymentView, DeviceView, NodeView, PartitionView, Phase, Role
from controlplane.fleet.models import Deployment, Gpu, Node, Partition, RegisteredModel


def device_view(gpu: Gpu) -> DeviceView:
    return DeviceView(
        uuid=gpu.uuid,
        index=gpu.index,
        kind=gpu.kind,
        memory_bytes=gpu.memory_bytes,
        name=gpu.name,
        health=gpu.health,
        health_detail=gpu.health_detail,
        foreign=gpu.foreign,
        flag=gpu.flag,
        present=gpu.present,
        mig_parent=gpu.mig_parent,
        peers=tuple(gpu.peers),
    )


def node_view(
    node: Node, *, gpus: Iterable[Gpu] | None = None, partitions: Iterable[Partition] | None = None
) -> NodeView:
    """`gpus` and `partitions` where the caller has them at hand already; else they are read."""
    gpus = node.gpus.all() if gpus is None else gpus
    partitions = node.partitions.all() if partitions is None else partitions
    return NodeView(
        name=node.name,
        devices=tuple(device_view(gpu) for gpu in gpus),
        engine_version=node.engine_version,
        schedulable=node.schedulable,
        draining=node.draining,
        revoked=node.revoked,
        last_seen=node.last_seen.timestamp() if node.last_seen else None,
        period_s=node.period_s,
        memory_bytes=node.memory_bytes,
        partitions_in_use=sum(1 for partition in partitions if has_process(partition)),
    )


def drain_facts(node: Node, partitions: Iterable[Partition]) -> dict[str, Any] | None:
    """How far the drain is; None where the node does not drain. `partitions` are all of the node's. The deadline is of
    the engine with the longest one, in unix seconds; None where nothing runs any more or none is known."""
    if not node.draining:
        return None
    left = [partition for partition in partitions if has_process(partition)]
    return {
        "began_at": node.drain_began_at.timestamp() if node.drain_began_at else None,
        "deadline_at": _deadline_at(node, left),
        "partitions_left": len(left),
        "returns_to": "cordoned" if node.cordoned_before else "ready",
    }


def partition_view(partition: Partition, *, gpus: Iterable[Gpu] | None = None) -> PartitionView:
    node = partition.node
    gpus = partition.gpus.all() if gpus is None else gpus
    return PartitionView(
        id=partition.pk,
        node_name=node.name,
        name=partition.name,
        gpus=tuple(device_view(gpu) for gpu in sorted(gpus, key=lambda gpu: gpu.index)),
        deployment=partition.deployment.name if partition.deployment else None,
        role=Role(partition.role) if partition.role else None,
        generation=partition.generation,
        observed_generation=partition.observed_generation,
        phase=Phase(partition.phase) if partition.phase else None,
        restarts=partition.restarts,
        node_last_seen=node.last_seen.timestamp() if node.last_seen else None,
        engine_version=partition.engine_version or node.engine_version,
        pool=partition.pool,
    )


def deployment_view(deployment: Deployment) -> DeploymentView:
    return DeploymentView(
        name=deployment.name,
        facts=facts_of(deployment.model),
        engine_args=tuple(deployment.engine_args),
        prefill_args=tuple(deployment.prefill_args),
        decode_args=tuple(deployment.decode_args),
        kv_connector=deployment.kv_connector,
        mode=deployment.mode,
    )


def facts_of(model: RegisteredModel) -> ModelFacts:
    return ModelFacts.from_dict(model.facts)


def _deadline_at(node: Node, left: list[Partition]) -> float | None:
    own = [float(partition.deployment.drain_s) for partition in left if partition.deployment]
    if not left or node.drain_began_at is None:
        return None
    if node.drain_deadline_at is not None:
        return node.drain_deadline_at.timestamp()
    return node.drain_began_at.timestamp() + max(own) if own else None


def has_process(partition: Partition) -> bool:
    """Whether a process was last reported for it: the engine may still hold its GPUs."""
    return partition.phase not in ("", Phase.EXITED)
