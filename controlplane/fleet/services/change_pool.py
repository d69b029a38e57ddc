"""What a change does to slots of the pool beside its moves, so that both are undone and led back together.

Rows of Change.plan["pool"] are dicts with partition ({id, name}), before and after (whether it is a slot). A slot goes
out of the pool before anything moves there; a partition that the change moves becomes one only once that is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from controlplane.audit.services import Actor
from controlplane.domain.types import Problem
from controlplane.fleet import owners, versions
from controlplane.fleet.errors import NotFound
from controlplane.fleet.models import Change, Partition
from controlplane.fleet.services import exclusive, sleepers


def write(partition: Partition, pool: bool, *, actor: Actor, reason: str = "", change: int | None = None) -> None:
    """Its node is locked, and whether the actor may is checked."""
    partition.pool, partition.overflow = pool, partition.overflow and pool
    partition.save(update_fields=["pool", "overflow"])
    sleepers.put_away(partition)
    versions.record(
        actor, "pool", partition, before={"pool": not pool}, after={"pool": pool}, reason=reason, change=change
    )


def inverse(change: Change | None) -> dict[int, bool]:
    """What its undo does to slots: nothing to those that are as they were already, or gone."""
    rows = {row["partition"]["id"]: bool(row["before"]) for row in rows_of(change)} if change else {}
    now = dict(Partition.objects.filter(pk__in=rows).values_list("pk", "pool"))
    return {pk: before for pk, before in rows.items() if now.get(pk, before) != before}


def rows_of(change: Change) -> list[dict[str, Any]]:
    return list(change.plan.get("pool", []))


def nodes(partitions: Collection[int]) -> set[int]:
    return set(Partition.objects.filter(pk__in=partitions).values_list("node_id", flat=True))


def planned(pool: Mapping[int, bool], actor: Actor) -> list[dict[str, Any]]:
    """Its rows, with the nodes locked. NotFound, NotOwner or Conflict where one may not be set aside or taken back."""
    found = _partitions(pool)
    for pk in pool:
        if pk not in found:
            raise NotFound("partition", pk)
        owners.require_partition(actor, "partition.change", found[pk])
    exclusive.require_free(pool.keys())
    return [
        {"partition": {"id": pk, "name": str(found[pk])}, "before": found[pk].pool, "after": after}
        for pk, after in sorted(pool.items())
        if found[pk].pool != after
    ]


def told(pool: Mapping[int, bool]) -> list[dict[str, Any]]:
    """For the preview, as its warnings are."""
    found = _partitions(pool)
    return [
        Problem("pool", f"{found[pk]} {'becomes a slot of' if after else 'leaves'} the pool with it.").to_dict()
        for pk, after in sorted(pool.items())
        if pk in found
    ]


def begin(change: Change, actor: Actor, rows: Mapping[int, Partition]) -> None:
    """`rows`: those that its steps write next. All but those that become slots once the change has moved them."""
    moved = _moved(change)
    _set(change, {pk: to for pk, to in _wanted(change, "after").items() if not (to and pk in moved)}, actor, rows)


def finish(change: Change, actor: Actor) -> None:
    """What is left of them; all of them back to what they were where the change was led back."""
    moved = _moved(change)
    if change.backwards:
        _set(change, _wanted(change, "before"), actor)
    else:
        _set(change, {pk: to for pk, to in _wanted(change, "after").items() if to and pk in moved}, actor)


def _set(change: Change, wanted: Mapping[int, bool], actor: Actor, rows: Mapping[int, Partition] | None = None) -> None:
    for pk, row in {**_partitions(wanted), **{pk: row for pk, row in (rows or {}).items() if pk in wanted}}.items():
        if row.pool != wanted[pk]:
            write(row, wanted[pk], actor=actor, reason=change.reason, change=change.pk)


def _wanted(change: Change, side: str) -> dict[int, bool]:
    return {row["partition"]["id"]: bool(row[side]) for row in rows_of(change)}


def _moved(change: Change) -> set[int]:
    return {move["partition"]["id"] for move in change.moves}


def _partitions(wanted: Collection[int]) -> dict[int, Partition]:
    rows = Partition.objects.select_related("node", "deployment__model").filter(pk__in=list(wanted)).order_by("pk")
    return {row.pk: row for row in rows}
