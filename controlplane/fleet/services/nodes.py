"""What people decide about whole nodes."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.db import transaction

from controlplane.audit.services import Actor, record
from controlplane.domain.health import is_silent
from controlplane.domain.types import Problem
from controlplane.fleet import broker
from controlplane.fleet.credentials import digest, new_node_token
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.facts import has_process
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.fleet.publish import publish
from controlplane.fleet.services import rows


def cordon(node_id: int, *, actor: Actor, reason: str = "") -> Node:
    """Nothing new is placed on the node; what runs there goes on."""
    return _intend(node_id, "cordon", actor, reason, schedulable=False)


def uncordon(node_id: int, *, actor: Actor, reason: str = "") -> Node:
    """The node takes part again; what a drain had stopped starts."""
    return _intend(node_id, "uncordon", actor, reason, schedulable=True, draining=False)


def drain(node_id: int, *, actor: Actor, reason: str = "") -> Node:
    """Cordon, and end all engines there once their requests have ended. Assignments are kept for uncordon."""
    return _intend(node_id, "drain", actor, reason, schedulable=False, draining=True)


@transaction.atomic
def label(node_id: int, *, labels: dict[str, str], actor: Actor) -> Node:
    """Replace the node's labels."""
    node = rows.lock_node(node_id)
    before, node.labels = node.labels, labels
    if before != labels:
        node.save(update_fields=["labels"])
        record(actor, "label", node, before={"labels": before}, after={"labels": labels})
    return node


@transaction.atomic
def revoke_node(node_id: int, *, actor: Actor, reason: str = "") -> Node:
    """Its agent is told to end its engines and itself, and its credentials open nothing more. Not to be undone: remove
    the node and join it anew."""
    node = rows.lock_node(node_id)
    if node.revoked:
        return node
    node.revoked, node.schedulable = True, False
    node.save(update_fields=["revoked", "schedulable"])
    record(actor, "revoke", node, before={"revoked": False}, after={"revoked": True}, reason=reason)
    publish(node)
    transaction.on_commit(lambda: broker.forget_node(node.pk))
    return node


@transaction.atomic
def remove_node(node_id: int, *, actor: Actor, reason: str = "") -> None:
    """Delete the node with its GPUs and partitions. Refused while anything is assigned to it or runs on it."""
    node = rows.lock_node(node_id)
    in_use = [p for p in node.partitions.select_related("deployment") if p.deployment_id or _may_run(node, p)]
    if in_use:
        names = ", ".join(partition.name for partition in in_use)
        message = f"{node.name} is in use: {names} have an assignment or a process."
        raise Refused([Problem("node-in-use", message, "Release its partitions first, and wait until they are empty.")])
    record(actor, "remove", node, before=_intent(node), reason=reason)
    node_pk = node.pk
    node.delete()
    transaction.on_commit(lambda: broker.forget_node(node_pk))


@transaction.atomic
def forget_gpu(gpu_id: int, *, actor: Actor) -> None:
    """Delete a GPU that its node no longer reports, with its samples."""
    gpu = Gpu.objects.select_related("node").filter(pk=gpu_id).first()
    if gpu is None:
        raise NotFound("GPU", gpu_id)
    rows.lock_node(gpu.node_id)
    gpu.refresh_from_db()
    if gpu.present:
        message = f"{gpu} is still in the node's reports."
        raise Refused([Problem("gpu-present", message, "Only a GPU that is gone can be forgotten.")])
    if gpu.partition_id:
        message = f"{gpu} still belongs to partition {gpu.partition}."
        raise Refused([Problem("gpu-in-partition", message, "Delete that partition first.")])
    record(actor, "forget-gpu", gpu, before={"uuid": gpu.uuid, "name": gpu.name})
    gpu.delete()


@transaction.atomic
def rotate_node_token(node_id: int, *, actor: Actor, reason: str = "") -> str:
    """A new uplink token, shown once; the old one opens nothing from now on."""
    node = rows.lock_node(node_id)
    token = new_node_token()
    node.token_hash = digest(token)
    node.save(update_fields=["token_hash"])
    record(actor, "rotate-token", node, reason=reason)
    return token


@transaction.atomic
def _intend(node_id: int, verb: str, actor: Actor, reason: str, **intent: bool) -> Node:
    node = rows.lock_node(node_id)
    if node.revoked:
        raise Refused([Problem("node-revoked", f"{node.name} is revoked.", "Remove it and join it anew.")])
    before = _intent(node)
    for column, value in intent.items():
        setattr(node, column, value)
    if (after := _intent(node)) != before:
        node.save(update_fields=list(intent))
        record(actor, verb, node, before=before, after=after, reason=reason)
        publish(node)
    return node


def _intent(node: Node) -> dict[str, Any]:
    return {"schedulable": node.schedulable, "draining": node.draining, "revoked": node.revoked}


def _may_run(node: Node, partition: Partition) -> bool:
    """What a silent or revoked node last said of its processes is no reason to keep its rows for ever."""
    last_seen = node.last_seen.timestamp() if node.last_seen else None
    heard = not is_silent(last_seen, time.time(), settings.SILENT_AFTER_S)
    return has_process(partition) and heard and not node.revoked
