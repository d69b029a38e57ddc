"""What people decide about weights that shall lie on a node ahead of their use."""

from __future__ import annotations

from django.db import transaction

from controlplane.audit.services import Actor, record
from controlplane.domain.types import Problem
from controlplane.fleet import owners
from controlplane.fleet.errors import Refused
from controlplane.fleet.models import Node, RegisteredModel, WantedWeights
from controlplane.fleet.publish import publish
from controlplane.fleet.services import rows
from workers.weights import MOST_FETCHES

OPERATOR = WantedWeights.Cause.OPERATOR


@transaction.atomic
def fetch_weights(node_id: int, *, model_id: int, actor: Actor, reason: str = "") -> WantedWeights:
    """The node's agent fetches them, and keeps them, until `unfetch_weights`. What is wanted already stays wanted: from
    now on by whoever asks."""
    node, model = _lock(node_id, model_id, actor)
    row = WantedWeights.objects.filter(node=node, model=model).first()
    if row is not None and row.cause == OPERATOR:
        return row
    if problem := _obstacle(node, model, is_new=row is None):
        raise Refused([problem])
    asked = {"cause": OPERATOR, "asked_by": actor.name[:150], "chance": None}
    row, _ = WantedWeights.objects.update_or_create(node=node, model=model, defaults=asked)
    record(actor, "fetch-weights", node, after={"model": model.name}, reason=reason)
    publish(node)
    return row


@transaction.atomic
def unfetch_weights(node_id: int, *, model_id: int, actor: Actor, reason: str = "") -> Node:
    """They are not fetched any more, and may go when room is needed: what is there stays till then."""
    node, model = _lock(node_id, model_id, actor)
    gone, _ = WantedWeights.objects.filter(node=node, model=model).delete()
    if gone:
        record(actor, "unfetch-weights", node, before={"model": model.name}, reason=reason)
        publish(node)
    return node


def _lock(node_id: int, model_id: int, actor: Actor) -> tuple[Node, RegisteredModel]:
    node = rows.lock_node(node_id)
    owners.require(actor, "node.change", node)
    return node, rows.get(RegisteredModel, model_id)


def _obstacle(node: Node, model: RegisteredModel, *, is_new: bool) -> Problem | None:
    if model.kind == RegisteredModel.Kind.FOLDER:
        message = f"{model.name} is a folder, {model.source}: there is nothing to fetch."
        return Problem("weights-of-a-folder", message, "Copy it to the node, under the same path.")
    if node.revoked:
        return Problem("node-revoked", f"{node.name} is revoked.", "Choose another node.")
    if is_new and WantedWeights.objects.filter(node=node).count() >= MOST_FETCHES:
        message = f"{MOST_FETCHES} models are wanted on {node.name} already, which is the most."
        return Problem("too-many-weights", message, "Take one of them back first.")
    return None
