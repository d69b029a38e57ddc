"""What people decide about whole nodes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.domain.health import is_silent
from controlplane.domain.types import Problem
from controlplane.fleet import broker, owners, versions
from controlplane.fleet.credentials import digest, new_node_token
from controlplane.fleet.errors import Invalid, NotFound, Refused
from controlplane.fleet.facts import has_process
from controlplane.fleet.models import Gpu, Node, Partition
from controlplane.fleet.publish import publish
from controlplane.fleet.services import rows

MAX_DEADLINE_S = 7 * 24 * 3600
_NO_DRAIN = {"draining": False, "cordoned_before": False, "drain_began_at": None, "drain_deadline_at": None}


def cordon(node_id: int, *, actor: Actor, reason: str = "") -> Node:
    """Nothing new is placed on the node; what runs there goes on."""
    return _intend(node_id, "cordon", actor, reason, schedulable=False)


def uncordon(node_id: int, *, actor: Actor, reason: str = "") -> Node:
    """The node takes part again; what a drain had stopped starts."""
    return _intend(node_id, "uncordon", actor, reason, schedulable=True, **_NO_DRAIN)


@transaction.atomic
def drain(node_id: int, *, actor: Actor, reason: str = "", deadline_s: float | None = None) -> Node:
    """Cordon, and end all engines there once their requests have ended: at the latest `deadline_s` from now, without
    it after the drain_s of each engine's deployment. Assignments are kept for uncordon and cancel. Of a node that
    drains already only the deadline changes, where one is given."""
    require_deadline(deadline_s)
    owners.require(actor, "node.cordon", *owners.of_moves([], leaving=node_id))
    return begin_drain(node_id, actor=actor, reason=reason, deadline_s=deadline_s)


@transaction.atomic
def begin_drain(node_id: int, *, actor: Actor, reason: str, deadline_s: float | None) -> Node:
    """The last act of a change, which was allowed as a whole when it was applied."""
    node, now = rows.lock_node(node_id), timezone.now()
    deadline_at = now + timedelta(seconds=deadline_s) if deadline_s is not None else None
    if node.draining:
        changes = {"drain_deadline_at": deadline_at} if deadline_at else {}
    else:
        changes = {
            "schedulable": False,
            "draining": True,
            "cordoned_before": not node.schedulable,
            "drain_began_at": now,
            "drain_deadline_at": deadline_at,
        }
    return _change(node, "drain", actor, reason, **changes)


@transaction.atomic
def cancel_drain(node_id: int, *, actor: Actor, reason: str = "") -> Node:
    """The node is as it was before its drain, schedulable or cordoned: engines that still drain serve again, those
    that have ended start. Nothing where it does not drain."""
    node = rows.lock_node(node_id)
    owners.require(actor, "node.cordon", node)
    if not node.draining:
        return node
    return _change(node, "cancel-drain", actor, reason, schedulable=not node.cordoned_before, **_NO_DRAIN)


def require_deadline(deadline_s: float | None) -> None:
    """Seconds; Invalid where no drain may have it."""
    if deadline_s is None or 0 <= deadline_s <= MAX_DEADLINE_S:
        return
    message = f"A drain's deadline is 0 to {MAX_DEADLINE_S} seconds, not {deadline_s:g}."
    raise Invalid([Problem("deadline", message, "Leave it out to give each engine its deployment's own.")])


@transaction.atomic
def label(node_id: int, *, labels: dict[str, str], actor: Actor) -> Node:
    """Replace the node's labels."""
    node = rows.lock_node(node_id)
    owners.require(actor, "node.change", node)
    before, node.labels = node.labels, labels
    if before != labels:
        node.save(update_fields=["labels"])
        versions.record(actor, "label", node, before={"labels": before}, after={"labels": labels})
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
    versions.record(actor, "revoke", node, before={"revoked": False}, after={"revoked": True}, reason=reason)
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
    versions.record(actor, "remove", node, before=_intent(node), reason=reason)
    node_pk = node.pk
    node.delete()
    transaction.on_commit(lambda: broker.forget_node(node_pk))


@transaction.atomic
def forget_gpu(gpu_id: int, *, actor: Actor) -> None:
    """Delete a GPU that its node no longer reports, with its samples."""
    gpu = Gpu.objects.select_related("node").filter(pk=gpu_id).first()
    if gpu is None:
        raise NotFound("GPU", gpu_id)
    owners.require(actor, "node.change", rows.lock_node(gpu.node_id))
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
def _intend(node_id: int, verb: str, actor: Actor, reason: str, **intent: Any) -> Node:
    node = rows.lock_node(node_id)
    owners.require(actor, "node.cordon", node)
    return _change(node, verb, actor, reason, **intent)


def _change(node: Node, verb: str, actor: Actor, reason: str, **intent: Any) -> Node:
    """Of the locked node; recorded and published where it is a change."""
    if node.revoked:
        raise Refused([Problem("node-revoked", f"{node.name} is revoked.", "Remove it and join it anew.")])
    before = _intent(node)
    for column, value in intent.items():
        setattr(node, column, value)
    if (after := _intent(node)) != before:
        node.save(update_fields=list(intent))
        versions.record(actor, verb, node, before=before, after=after, reason=reason)
        publish(node)
    return node


def _intent(node: Node) -> dict[str, Any]:
    deadline = {"drain_deadline_at": node.drain_deadline_at.isoformat()} if node.drain_deadline_at else {}
    return {"schedulable": node.schedulable, "draining": node.draining, "revoked": node.revoked, **deadline}


def _may_run(node: Node, partition: Partition) -> bool:
    """What a silent or revoked node last said of its processes is no reason to keep its rows for ever."""
    last_seen = node.last_seen.timestamp() if node.last_seen else None
    heard = not is_silent(last_seen, time.time(), settings.SILENT_AFTER_S)
    return has_process(partition) and heard and not node.revoked
