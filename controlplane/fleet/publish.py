"""Builds a node's spec from its rows, and counts its generation. The only writer of Node.spec, Node.generation and
Partition.generation."""

from __future__ import annotations

import time

import msgspec
from django.conf import settings
from django.db import transaction

from controlplane.domain.health import is_silent
from controlplane.fleet import fetching, nudge, qualified
from controlplane.fleet.facts import facts_of
from controlplane.fleet.models import Deployment, Node, Partition, Sleeper
from workers.contract import NodeSpec, ReplicaSpec, Role
from workers.qualification import QualifyWanted
from workers.sleep import MOST_SLEEPERS
from workers.weights import FetchWanted

Besides = tuple[float | None, tuple[QualifyWanted, ...], tuple[FetchWanted, ...], tuple[ReplicaSpec, ...]]


def publish(node: Node) -> bool:
    """Store a new spec if anything in it changed, and nudge the node after the commit. Call it inside the change's own
    transaction, with the node row locked. True where the generation moved.

    A partition's own generation moves with what its replica has to confirm before requests are sent to it. What needs
    no confirmation reaches the node as well, but a replica must not leave the routing for it.

    A node may hold a generation that we never wrote, when the database was restored from a backup. Then the counter
    jumps past it, for all partitions: whatever the node holds under the lost numbers is none of our doing."""
    held = _held(node)
    wanted = {replica.partition: replica for replica in _replicas(node)}
    from_the_future = node.observed_generation > node.generation
    changed = set(wanted) | set(held) if from_the_future else _changed(held, wanted)
    drain_s, qualify, fetch, beds = _drain_s(node), qualified.wanted(node), fetching.wanted(node), _sleepers(node)
    besides = drain_s, qualify, fetch, beds
    is_same = _stated(held) == _stated(wanted) and _besides(node) == besides
    if is_same and node.spec is not None and not from_the_future:
        return False
    generation = max(node.generation, node.observed_generation) + 1
    replicas = tuple(
        msgspec.structs.replace(replica, generation=generation if partition in changed else held[partition].generation)
        for partition, replica in wanted.items()
    )
    spec = msgspec.to_builtins(
        NodeSpec(
            node=node.pk,
            generation=generation,
            replicas=replicas,
            drain_s=drain_s,
            qualify=qualify,
            fetch=fetch,
            sleepers=beds,
        )
    )
    node.spec, node.generation = spec, generation
    node.save(update_fields=["spec", "generation"])
    Partition.objects.filter(node=node, pk__in=changed).update(generation=generation)
    transaction.on_commit(lambda: _nudge_if_heard(node, spec))
    return True


def spec_of(node: Node) -> NodeSpec | None:
    """The stored spec as the value that the agent gets."""
    return None if node.spec is None else msgspec.convert(node.spec, NodeSpec)


def _held(node: Node) -> dict[int, ReplicaSpec]:
    spec = spec_of(node)
    return {replica.partition: replica for replica in spec.replicas} if spec else {}


def _besides(node: Node) -> Besides:
    """What the stored spec says that no partition has to confirm."""
    spec = spec_of(node)
    return (spec.drain_s, spec.qualify, spec.fetch, spec.sleepers) if spec else (None, (), (), ())


def _drain_s(node: Node) -> float | None:
    """Of the drain as a whole: an engine counts from when it began to drain, which is when the node did."""
    if not node.draining or node.drain_began_at is None or node.drain_deadline_at is None:
        return None
    return round(max(0.0, (node.drain_deadline_at - node.drain_began_at).total_seconds()), 3)


def _changed(held: dict[int, ReplicaSpec], wanted: dict[int, ReplicaSpec]) -> set[int]:
    """Partitions whose replicas have something new to confirm."""
    return {
        partition
        for partition in held.keys() | wanted.keys()
        if partition not in held
        or partition not in wanted
        or _to_confirm(held[partition]) != _to_confirm(wanted[partition])
    }


def _stated(replicas: dict[int, ReplicaSpec]) -> dict[int, ReplicaSpec]:
    return {partition: msgspec.structs.replace(replica, generation=0) for partition, replica in replicas.items()}


def _to_confirm(replica: ReplicaSpec) -> ReplicaSpec:
    """Without the partition's name, the drain deadline and whether it can sleep: it serves the same whatever those."""
    return msgspec.structs.replace(replica, generation=0, name="", drain_s=0.0, sleeps=None)


def _replicas(node: Node) -> list[ReplicaSpec]:
    """What should run there: nothing on a node that is draining or revoked, though its assignments are kept."""
    if node.draining or node.revoked:
        return []
    partitions = (
        node.partitions.filter(deployment__isnull=False)
        .select_related("deployment__model")
        .prefetch_related("gpus")
        .order_by("pk")
    )
    return [replica_spec(partition) for partition in partitions]


def _sleepers(node: Node) -> tuple[ReplicaSpec, ...]:
    """Who may sleep there, the last to leave first: of slots alone, and where engines sleep at all."""
    if node.draining or node.revoked or not settings.POOL_SLEEPERS:
        return ()
    found = Sleeper.objects.filter(partition__node=node, partition__pool=True)
    rows = [
        row
        for row in found.select_related("partition", "deployment__model").prefetch_related("partition__gpus")
        if row.deployment_id != row.partition.deployment_id
    ][:MOST_SLEEPERS]
    for row in rows:
        row.partition.node = node
    return tuple(_spec(row.partition, row.deployment, Role.AGGREGATED, row.engine_key) for row in rows)


def replica_spec(partition: Partition) -> ReplicaSpec:
    return _spec(partition, partition.deployment, Role(partition.role), partition.engine_key)


def _spec(partition: Partition, deployment: Deployment, role: Role, key: str) -> ReplicaSpec:
    gpus = sorted(partition.gpus.all(), key=lambda gpu: gpu.index)
    return ReplicaSpec(
        partition=partition.pk,
        name=partition.name,
        deployment=deployment.name,
        role=role,
        gpus=tuple(gpu.uuid for gpu in gpus),
        model=deployment.model.source,
        revision=deployment.model.revision,
        served_names=(deployment.name, *deployment.aliases),
        engine=deployment.engine,
        args=_args(deployment, role),
        kv_connector="" if role is Role.AGGREGATED and not deployment.convertible else deployment.kv_connector,
        kv_lease_s=settings.KV_LEASE_S,
        api_key=key,
        drain_s=float(deployment.drain_s),
        sleeps=sleeps(partition, deployment, role),
    )


def sleeps(partition: Partition, deployment: Deployment, role: Role) -> int | None:
    """Bytes of its weights where it is to be able to sleep (0: not known), None where it is not: an engine of its own,
    in a slot on GPUs of a node that lets engines sleep. One that others pull KV from cannot."""
    node, alone = partition.node, role is Role.AGGREGATED and not deployment.convertible
    if not (settings.POOL_SLEEPERS and partition.pool and alone and node.sleep_cap_bytes and not node.sleep_why_not):
        return None
    return facts_of(deployment.model).parameter_bytes or 0


def _args(deployment: Deployment, role: Role) -> tuple[str, ...]:
    own = {Role.PREFILL: deployment.prefill_args, Role.DECODE: deployment.decode_args}.get(role, [])
    return (*deployment.engine_args, *own)


def _nudge_if_heard(node: Node, spec: dict[str, object]) -> None:
    """Nobody reads the queue of a node that is not heard; it gets the spec with its first report. And of several
    changes in one transaction only the last is worth a message."""
    last_seen = node.last_seen.timestamp() if node.last_seen else None
    is_heard = not is_silent(last_seen, time.time(), settings.SILENT_AFTER_S)
    if is_heard and Node.objects.filter(pk=node.pk, generation=spec["generation"]).exists():
        nudge.send(node.pk, spec)
