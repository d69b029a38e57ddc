"""The lists that hold most, read as plain columns: no row of the ORM and no serializer for each.

A list says what the serializer of its resource says of one; a test holds the two to it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Any, ClassVar

import msgspec
from django.conf import settings
from django.db.models import DateTimeField, QuerySet
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.serializers import ModelSerializer

from controlplane.api.qualifications import summary
from controlplane.api.shapes import GpuShape, NodeShape, PartitionShape
from controlplane.domain import health
from controlplane.domain.types import NodeView, PartitionView, Phase, Role
from controlplane.fleet import qualified
from controlplane.fleet.derived import partition_words
from controlplane.fleet.models import Gpu, Node

Row = Any  # a named tuple of columns


class PlainList:
    """For a resource whose list is `listed` from `columns` of its rows."""

    columns: ClassVar[Columns]

    def listed(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def list(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        rows = self.paginate_queryset(_Rows(self._rows(request), self.columns))  # type: ignore[attr-defined]
        answer = self.get_paginated_response(self.listed(rows))  # type: ignore[attr-defined]
        return HttpResponse(msgspec.json.encode(answer.data), content_type="application/json")

    def _rows(self, request: Request) -> QuerySet[Any]:
        """Filters cost as much as the rest together: they are made where one is asked for."""
        found = self.get_queryset().select_related(None).prefetch_related(None)  # type: ignore[attr-defined]
        filters = [backend() for backend in self.filter_backends]  # type: ignore[attr-defined]
        if not request.query_params.keys() & self.filterset_class.base_filters.keys():  # type: ignore[attr-defined]
            filters = filters[1:]
        for one in filters:
            found = one.filter_queryset(request, found, self)
        return found.defer(None)


class _Rows:
    """What a paginator needs of rows: their number, without the joins that showing some of them takes, and a slice."""

    ordered = True

    def __init__(self, rows: QuerySet[Any], columns: Columns) -> None:
        self.count = rows.count
        self._shown = rows.values_list(*columns.all, named=True)

    def __getitem__(self, place: slice) -> Iterable[Row]:
        return self._shown[place]


class Columns:
    """Those that a shape says as they are, whatever its fields become, and others that the rest is made from."""

    def __init__(self, shape: type[ModelSerializer], *, made: Iterable[str], of: Sequence[str]) -> None:
        self.plain = tuple(name for name in shape.Meta.fields if name not in set(made))
        self.all = (*self.plain, *of)
        model = shape.Meta.model._meta
        self._moments = [name for name in self.plain if isinstance(model.get_field(name), DateTimeField)]

    def said(self, row: Row, zone: tzinfo) -> dict[str, Any]:
        """Moments as serializers write them: in the time zone of the settings."""
        said = dict(zip(self.plain, row, strict=False))
        for name in self._moments:
            if (moment := said[name]) is not None:
                said[name] = moment.astimezone(zone).isoformat().replace("+00:00", "Z")
        return said


NODE = Columns(NodeShape, made=("status", "drain", "owners"), of=("restricted",))
GPU = Columns(
    GpuShape,
    made=("node", "partition", "qualification"),
    of=("node_id", "node__name", "partition_id", "partition__name"),
)
PARTITION = Columns(
    PartitionShape,
    made=(
        "node", "gpus", "deployment", "role", "status", "confirmed", "verified", "verify_message", "phase", "endpoint",
    ),
    of=(
        "node_id", "node__name", "node__last_seen", "deployment_id", "deployment__name", "role", "verified_generation",
        "verify_message", "failed_generation", "phase", "endpoint",
    ),
)  # fmt: skip


def nodes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """As NodeShape, which is asked itself of the few that drain or are kept by owners."""
    now, zone = time.time(), timezone.get_current_timezone()
    rare = [row.id for row in rows if row.draining or row.restricted]
    whole: dict[int, dict[str, Any]] = {}
    if rare:
        of = Node.objects.defer("spec").filter(pk__in=rare).prefetch_related("partitions__deployment", "owners")
        whole = {shown["id"]: shown for shown in NodeShape(of, many=True).data}
    return [whole.get(row.id) or _node(row, now, zone) for row in rows]


def gpus(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """As GpuShape."""
    zone, known = timezone.get_current_timezone(), qualified.newest([row.id for row in rows])
    return [
        {
            **GPU.said(row, zone),
            "node": {"id": row.node_id, "name": row.node__name},
            "partition": _link(row.partition_id, row.partition__name),
            "qualification": summary(known[row.id]) if row.id in known else None,
        }
        for row in rows
    ]


def partitions(rows: Sequence[Row], *, endpoints: bool) -> list[dict[str, Any]]:
    """As PartitionShape."""
    now, zone = time.time(), timezone.get_current_timezone()
    members: dict[int, list[dict[str, Any]]] = defaultdict(list)
    of = Gpu.objects.filter(partition__in=[row.id for row in rows]).order_by("index")
    for partition, pk, index, uuid in of.values_list("partition_id", "pk", "index", "uuid"):
        members[partition].append({"id": pk, "index": index, "uuid": uuid})
    return [_partition(row, members[row.id], endpoints, now, zone) for row in rows]


def _node(row: Row, now: float, zone: tzinfo) -> dict[str, Any]:
    view = NodeView(name=row.name, schedulable=row.schedulable, revoked=row.revoked, last_seen=_unix(row.last_seen))
    return {
        **NODE.said(row, zone),
        "status": health.node_status(view, now, settings.SILENT_AFTER_S).value,
        "drain": None,
        "owners": None,
    }


def _partition(row: Row, members: list[dict[str, Any]], endpoints: bool, now: float, zone: tzinfo) -> dict[str, Any]:
    view = PartitionView(
        id=row.id,
        node_name=row.node__name,
        name=row.name,
        deployment=row.deployment__name,
        role=Role(row.role) if row.role else None,
        generation=row.generation,
        observed_generation=row.observed_generation,
        phase=Phase(row.phase) if row.phase else None,
        restarts=row.restarts,
        node_last_seen=_unix(row.node__last_seen),
    )
    return {
        **PARTITION.said(row, zone),
        "node": {"id": row.node_id, "name": row.node__name},
        "gpus": members,
        "deployment": _link(row.deployment_id, row.deployment__name),
        **partition_words(row, view, now),
        "endpoint": (row.endpoint or None) if endpoints else None,
    }


def _link(pk: int | None, name: str | None) -> dict[str, Any] | None:
    return None if pk is None else {"id": pk, "name": name}


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
