"""Rows by key, locked where a change follows. A missing one is NotFound with a sentence, not DoesNotExist."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import IntegrityError, transaction
from django.db.models import Model

from controlplane.domain.types import Problem
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.models import Deployment, Node, Partition, RegisteredModel

Row = TypeVar("Row", bound=Model)
WORDS = {Node: "node", RegisteredModel: "model", Deployment: "deployment", Partition: "partition"}


def get(model: type[Row], pk: int, *related: str) -> Row:
    row = model._default_manager.select_related(*related).filter(pk=pk).first()
    if row is None:
        raise NotFound(WORDS.get(model, model._meta.verbose_name), pk)
    return row


@contextmanager
def saved_as(name_taken: Problem) -> Iterator[None]:
    """Around the save of a row whose name was free when we looked: on PostgreSQL another one may have taken it since.
    In a savepoint, as the transaction could not go on after the error."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise Refused([name_taken]) from error


def lock_deployment(deployment_id: int) -> Deployment:
    """Always before any node: a change of a deployment and an assignment to it then wait for each other, in one order,
    and neither misses the other."""
    found = Deployment.objects.select_for_update(of=("self",)).select_related("model").filter(pk=deployment_id).first()
    if found is None:
        raise NotFound("deployment", deployment_id)
    return found


def lock_node(node_id: int) -> Node:
    """The node's row is the lock of all that lies on it. SQLite locks the whole file at BEGIN IMMEDIATE instead."""
    node = Node.objects.select_for_update().filter(pk=node_id).first()
    if node is None:
        raise NotFound("node", node_id)
    return node


def lock_partition(partition_id: int) -> Partition:
    """The partition as it is once its node is locked; `partition.node` is that locked row."""
    node_id = Partition.objects.filter(pk=partition_id).values_list("node_id", flat=True).first()
    if node_id is None:
        raise NotFound("partition", partition_id)
    node = lock_node(node_id)
    partition = get(Partition, partition_id, "deployment__model")
    partition.node = node
    return partition


def lock_partitions(partition_ids: Collection[int]) -> dict[int, Partition]:
    """Several, as they are once their nodes are locked - in the order of their ids, so that no two can wait for each
    other. Those of one node share its row. Call it before anything of the change is written."""
    where = dict(Partition.objects.filter(pk__in=partition_ids).values_list("pk", "node_id"))
    for pk in partition_ids:
        if pk not in where:
            raise NotFound("partition", pk)
    nodes = {node_id: lock_node(node_id) for node_id in sorted(set(where.values()))}
    found = {}
    for pk in sorted(where):
        found[pk] = get(Partition, pk, "deployment__model")
        found[pk].node = nodes[where[pk]]
    return found
