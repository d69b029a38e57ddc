"""Rows for a simulated fleet: its nodes joined, its models registered and assigned, and all of it taken away again.
Through the services, as anybody's."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from django.core.management.base import CommandError
from django.db.models import Count

from controlplane.audit.services import Actor
from controlplane.fleet import services as fleet
from controlplane.fleet.models import Deployment, Node, Partition, RegisteredModel
from workers.joining import JoinRequest

ACTOR = Actor.system("manage.py simulate_fleet")
LABEL = {"simulated": "yes"}
REASON = "simulated fleet"
ROLES = ("prefill", "decode", "decode", "")  # of a node's partitions, in turn
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
}  # fmt: skip


def require_alone() -> None:
    real = list(
        Node.objects.filter(simulated=False).exclude(labels__simulated="yes").values_list("name", flat=True)[:3]
    )
    if real:
        raise CommandError(
            f"This fleet has real nodes ({', '.join(real)}); nothing was changed. Use a control plane of its own, or "
            "say --mix."
        )


def join(count: int) -> list[dict[str, object]]:
    """Nodes sim-0001 and so on, joined by a token each, as seats for the player; those of an earlier play get new
    credentials."""
    return [_join(f"sim-{number:04d}") for number in range(1, count + 1)]


def _join(name: str) -> dict[str, object]:
    _, token = fleet.issue_join_token(node_name=name, actor=ACTOR)
    instance = uuid4().hex
    request = JoinRequest(
        token=token, name=name, address="127.0.0.1", instance=instance, agent_version="", at=time.time()
    )  # fmt: skip
    reply = fleet.join(request, address_seen="127.0.0.1")
    fleet.label(reply.node, labels=LABEL, actor=ACTOR)
    seat = {"node": reply.node, "name": name, "token": reply.node_token, "instance": instance}
    return {**seat, "broker_url": reply.broker_url, "queue": reply.queue}


def furnish(nodes: Sequence[int], models: int, home: Path) -> int:
    """Give nodes that have no partitions theirs, and `models` deployments in turn; how many partitions serve."""
    deployments, serving = [_deployment(place, home) for place in range(models)], 0
    rows = Node.objects.filter(pk__in=nodes, partitions__isnull=True).annotate(count=Count("gpus")).order_by("name")
    for place, node in enumerate(rows):
        for part, role in zip(_split(node.pk, node.count), ROLES * node.count, strict=False):
            if role and deployments:
                deployment = deployments[place % len(deployments)]
                fleet.assign(part.pk, deployment_id=deployment.pk, role=role, actor=ACTOR, reason=REASON)
                serving += 1
    return serving


def _split(node: int, gpus: int) -> list[Partition]:
    """Pairs of GPUs where there are so many."""
    size = 2 if gpus >= 2 * len(ROLES) and gpus % 2 == 0 else 1
    groups = [list(range(first, first + size)) for first in range(0, gpus, size)]
    return fleet.split_node(node, groups=groups, actor=ACTOR)


def _deployment(place: int, home: Path) -> Deployment:
    name = f"sim-model-{place:02d}"
    if found := Deployment.objects.filter(name=name).first():
        return found
    folder = home / "simulated" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    model = RegisteredModel.objects.filter(name=name).first() or fleet.register_model(
        name=name, source=str(folder), actor=ACTOR
    )
    return fleet.create_deployment(name=name, model_id=model.pk, actor=ACTOR)


def remove() -> int:
    """Everything that this made; how many nodes. Their player must have ended."""
    nodes = list(Node.objects.filter(labels__simulated="yes"))
    for node in nodes:
        for partition in node.partitions.filter(deployment__isnull=False):
            fleet.release(partition.pk, actor=ACTOR, reason=REASON)
        fleet.revoke_node(node.pk, actor=ACTOR, reason=REASON)
        fleet.remove_node(node.pk, actor=ACTOR, reason=REASON)
    for deployment in Deployment.objects.filter(name__startswith="sim-model-", partitions__isnull=True):
        fleet.delete_deployment(deployment.pk, actor=ACTOR)
    for model in RegisteredModel.objects.filter(name__startswith="sim-model-", deployments__isnull=True):
        fleet.delete_model(model.pk, actor=ACTOR)
    return len(nodes)
