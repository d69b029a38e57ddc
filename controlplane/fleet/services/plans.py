"""A ready-made plan for a whole node: its split and all its roles at once."""

from __future__ import annotations

import time

from django.conf import settings
from django.db import transaction

from controlplane.audit.services import Actor
from controlplane.domain import placement, plans
from controlplane.domain.types import DomainError
from controlplane.fleet import owners
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.facts import deployment_view, node_view
from controlplane.fleet.models import Partition
from controlplane.fleet.services import rows
from controlplane.fleet.services.assignments import assign
from controlplane.fleet.services.partitions import split_node


@transaction.atomic
def apply_plan(
    node_id: int, *, plan: str, deployment_id: int, actor: Actor, reason: str = "", force: bool = False
) -> list[Partition]:
    """Split the node as the plan of that key says and assign the deployment in its roles: all of it or nothing."""
    found = _plan(plan)
    deployment = rows.lock_deployment(deployment_id)
    node = rows.lock_node(node_id)
    owners.require(actor, "partition.assign", node, deployment)
    gpus = list(node.gpus.filter(present=True).order_by("index"))
    problems = plans.plan_problems(
        found,
        deployment_view(deployment),
        node=node_view(node, gpus=gpus),
        now=time.time(),
        silent_after_s=settings.SILENT_AFTER_S,
    )
    if placement.blocking(problems, force=force):
        raise Refused(problems)
    groups = [[gpus[position].index for position in group] for group in found.groups]
    made = split_node(node_id, groups=groups, actor=actor)
    whole = {"deployment_id": deployment_id, "actor": actor, "reason": reason or f"plan {found.title}", "force": force}
    return [assign(partition.pk, role=role.value, **whole) for partition, role in zip(made, found.roles, strict=True)]


def _plan(key: str) -> plans.NodePlan:
    try:
        return plans.node_plan(key)
    except DomainError as error:
        raise Invalid([error.problem]) from error
