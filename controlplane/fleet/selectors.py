"""What others read of the fleet: plain values, a fixed number of queries, no engine keys but for the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Count, F, QuerySet

from controlplane.domain.engine_args import int_value
from controlplane.domain.memory import CPU_BLOCK_TOKENS
from controlplane.fleet.models import Deployment, Node, Partition
from workers.contract import Phase

HIDDEN = "hidden"
ROUTING_MARK = (
    "SELECT SUM(generation), SUM(observed_generation), COUNT(CASE WHEN phase = %s THEN 1 END), MAX(phase_since) "
    "FROM fleet_partition"
)
ROUTING_PARTITIONS = (
    "SELECT p.id, p.name, p.deployment_id, p.role, p.overflow, p.observed_role, p.generation, "
    "p.observed_generation, p.phase, p.phase_since, p.endpoint, p.engine_key, n.id, n.name, n.revoked, "
    "n.last_seen >= %s "
    "FROM fleet_partition p JOIN fleet_node n ON n.id = p.node_id ORDER BY p.id"
)


@dataclass(frozen=True, slots=True)
class RoutingRow:
    """A partition that requests may be sent to."""

    partition: int
    name: str  # node/partition
    node: int
    deployment: str
    role: str
    overflow: bool  # the pool lends it to the deployment
    endpoint: str
    engine_key: str
    generation: int
    phase_since: float


@dataclass(frozen=True, slots=True)
class ServedRow:
    """A deployment and the names it is asked for by, whether or not anything serves it now."""

    id: int
    deployment: str
    aliases: tuple[str, ...]
    min_transfer_tokens: int
    prefill_max_requests: int | None  # in flight at one engine
    decode_max_requests: int | None
    aggregated_max_requests: int | None
    overflow: bool  # what its own engines cannot take may wake one in the pool
    roles_alike: bool  # prefill and decode engines are started alike
    block_tokens: int  # of a KV block; where it is not set, the larger one of CPU slots
    kv_connector: str
    mode: str
    pair: bool  # the pool wakes it as prefill and decode
    created_at: float


def redacted_spec(node: Node) -> dict[str, Any] | None:
    """The spec that the agent gets, with engine keys hidden."""
    if node.spec is None:
        return None
    replicas = [
        {**replica, "api_key": HIDDEN} if replica.get("api_key") else replica for replica in node.spec["replicas"]
    ]
    asleep = [{**one, "api_key": HIDDEN} for one in node.spec.get("sleepers", ())]
    return {**node.spec, "replicas": replicas} | ({"sleepers": asleep} if asleep else {})


def serving_counts(now: datetime) -> dict[int, int]:
    """How many engines of each deployment requests are sent to; a deployment without any is not in it."""
    counted = _routed(now).order_by().values_list("deployment_id").annotate(Count("pk"))
    return dict(counted)


def waking(now: datetime) -> set[int]:
    """Pooled deployments with an engine whose first start goes on, on a node that is heard."""
    found = Partition.objects.filter(
        deployment__mode=Deployment.Mode.POOLED,
        phase__in=("", Phase.STARTING.value, Phase.WAKING.value),
        restarts=0,
        node__revoked=False,
        node__last_seen__gte=_heard_since(now),
    )
    return set(found.values_list("deployment_id", flat=True))


def _routed(now: datetime) -> QuerySet[Partition]:
    """Ready, in the desired role, at the desired generation, on nodes that are heard."""
    return Partition.objects.filter(
        deployment__isnull=False,
        phase=Phase.READY.value,
        observed_generation=F("generation"),
        observed_role=F("role"),
        node__revoked=False,
        node__last_seen__gte=_heard_since(now),
    ).exclude(endpoint="")


def routing_rows(now: datetime) -> list[RoutingRow]:
    """The confirmed partitions of nodes that are heard."""
    found = _routed(now)
    columns = (
        "pk", "name", "node_id", "node__name", "deployment__name", "role", "overflow", "endpoint", "engine_key",
        "generation", "phase_since",
    )  # fmt: skip
    return [
        RoutingRow(
            partition=row["pk"],
            name=f"{row['node__name']}/{row['name']}",
            node=row["node_id"],
            deployment=row["deployment__name"],
            role=row["role"],
            overflow=row["overflow"],
            endpoint=row["endpoint"],
            engine_key=row["engine_key"],
            generation=row["generation"],
            phase_since=row["phase_since"].timestamp() if row["phase_since"] else 0.0,
        )
        for row in found.order_by("pk").values(*columns)
    ]


def routing_mark() -> tuple[object, ...]:
    """A value that differs once a partition is assigned, released, confirmed, or changes its phase: one row, in plain
    SQL, so that it can be asked for several times a second."""
    with connection.cursor() as cursor:
        cursor.execute(ROUTING_MARK, [Phase.READY.value])
        return tuple(cursor.fetchone())


def last_heard() -> datetime | None:
    """When the newest report of any node came. In plain SQL, for it is asked for every second."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT MAX(last_seen) FROM fleet_node")
        (newest,) = cursor.fetchone()
    if isinstance(newest, str):  # SQLite keeps text
        newest = datetime.fromisoformat(newest)
    return newest.replace(tzinfo=UTC) if newest is not None and newest.tzinfo is None else newest


def routing_state(now: datetime) -> tuple[object, object]:
    """Values that are the same as long as `routing_rows` and `served_rows` are. In plain SQL, for it is asked for every
    second: making objects of the rows costs many times as much, and mostly they are those of the second before."""
    heard = connection.ops.adapt_datetimefield_value(_heard_since(now))
    with connection.cursor() as cursor:
        cursor.execute(ROUTING_PARTITIONS, [heard])
        partitions = cursor.fetchall()
        cursor.execute("SELECT * FROM fleet_deployment ORDER BY id")
        return partitions, cursor.fetchall()


def served_rows() -> list[ServedRow]:
    return [
        ServedRow(
            id=deployment.pk,
            deployment=deployment.name,
            aliases=tuple(deployment.aliases),
            min_transfer_tokens=deployment.min_transfer_tokens,
            prefill_max_requests=deployment.prefill_max_requests,
            decode_max_requests=deployment.decode_max_requests,
            aggregated_max_requests=deployment.aggregated_max_requests,
            overflow=deployment.overflow and deployment.mode == Deployment.Mode.DEDICATED,
            roles_alike=deployment.prefill_args == deployment.decode_args,
            block_tokens=_block_tokens(deployment),
            kv_connector=deployment.kv_connector,
            mode=deployment.mode,
            pair=deployment.is_pair,
            created_at=deployment.created_at.timestamp(),
        )
        for deployment in Deployment.objects.order_by("pk")
    ]


def _heard_since(now: datetime) -> datetime:
    return now - timedelta(seconds=settings.SILENT_AFTER_S)


def _block_tokens(deployment: Deployment) -> int:
    asked = int_value([*deployment.engine_args, *deployment.prefill_args], "--block-size")
    return asked if asked and asked > 0 else CPU_BLOCK_TOKENS
