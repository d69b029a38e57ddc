"""Rows for tests, written as the services would leave them. Each function makes what it needs and was not given."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.utils import timezone
from knox.models import AuthToken

from controlplane.audit.models import TokenGrant
from controlplane.domain.model_facts import from_config
from controlplane.domain.rollout import Move
from controlplane.domain.types import Role
from controlplane.fleet import services
from controlplane.fleet.models import Deployment, Gpu, Node, Partition, RegisteredModel
from controlplane.scaling.models import ScalingPlan

GIB = 1024**3
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
}
SMOLLM2_BYTES = 269_060_552
_count = itertools.count(1)


def token_of(node: Node) -> str:
    """The plain uplink token that make_node gave."""
    return f"fbn-test-{node.name}"


def make_node(name: str | None = None, *, gpus: int = 0, heard: bool = True, **columns: Any) -> Node:
    """A joined node with `gpus` simulated GPUs of 80 GiB, heard just now unless `heard` is False."""
    name = name or f"node-{next(_count)}"
    defaults = {
        "address": "127.0.0.1",
        "token_hash": hashlib.sha256(f"fbn-test-{name}".encode()).hexdigest(),
        "instance": f"instance-{name}" if heard else "",
        "boot": "boot-1" if heard else "",
        "last_seen": timezone.now() if heard else timezone.now() - timedelta(hours=1),
        "engine_version": "0.32.0",
        "memory_bytes": 64 * GIB,
        "cpu_count": 8,
    }
    node = Node.objects.create(name=name, **(defaults | columns))
    make_gpus(node, gpus)
    return node


def make_gpu(node: Node | None = None, index: int | None = None, **columns: Any) -> Gpu:
    node = node or make_node()
    index = node.gpus.count() if index is None else index
    defaults = {
        "uuid": f"GPU-{node.name}-{index}",
        "kind": "simulated",
        "name": "Simulated H100 80GB",
        "memory_bytes": 80 * GIB,
    }
    return Gpu.objects.create(node=node, index=index, **(defaults | columns))


def make_gpus(node: Node, count: int, **columns: Any) -> list[Gpu]:
    return [make_gpu(node, **columns) for _ in range(count)]


def make_model(name: str | None = None, *, config: dict[str, Any] | None = None, **columns: Any) -> RegisteredModel:
    """A registered SmolLM2-135M, or what `config` (a config.json as a dict) describes."""
    facts = from_config({**SMOLLM2, **(config or {})}, SMOLLM2_BYTES).to_dict()
    name = name or f"model-{next(_count)}"
    defaults = {"kind": "folder", "source": f"/models/{name}", "facts": facts}
    return RegisteredModel.objects.create(name=name, **(defaults | columns))


def make_deployment(name: str | None = None, *, model: RegisteredModel | None = None, **columns: Any) -> Deployment:
    return Deployment.objects.create(name=name or f"deployment-{next(_count)}", model=model or make_model(), **columns)


def make_partition(
    node: Node | None = None,
    *,
    gpus: int | Sequence[Gpu] = 1,
    deployment: Deployment | None = None,
    role: str = "",
    **columns: Any,
) -> Partition:
    """A partition over new GPUs (or those given). With a role it is assigned: to `deployment` or a new one."""
    node = node or make_node()
    if role and deployment is None:
        deployment = make_deployment()
    if deployment is not None:
        columns = {"engine_key": f"fbe-test-{next(_count)}", "role": role or "aggregated", **columns}
    columns.setdefault("name", f"p{node.partitions.count()}")
    partition = Partition.objects.create(node=node, deployment=deployment, **columns)
    members = make_gpus(node, gpus) if isinstance(gpus, int) else gpus
    Gpu.objects.filter(pk__in=[gpu.pk for gpu in members]).update(partition=partition)
    return partition


def make_ready(partition: Partition, **columns: Any) -> Partition:
    """As after the agent's report that its engine is ready at the partition's generation."""
    observed = {
        "phase": "ready",
        "phase_since": timezone.now(),
        "observed_generation": partition.generation,
        "observed_role": partition.role,
        "endpoint": f"http://127.0.0.1:{18100 + partition.pk % 100}",
        "pid": 10_000 + partition.pk,
        "engine_version": "0.32.0",
    }
    Partition.objects.filter(pk=partition.pk).update(**(observed | columns))
    partition.refresh_from_db()
    return partition


def make_user(role: str = "viewer", *, username: str | None = None, password: str = "correct horse battery") -> User:
    """A user in the group of that role; role "" is in none."""
    user = User.objects.create_user(username or f"{role or 'nobody'}-{next(_count)}", password=password)
    if role:
        user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


def make_token(user: User, scope: str = "admin") -> str:
    """The plain text of a token for an hour. Its scope may be more than the role: the role then decides."""
    token, plain = AuthToken.objects.create(user, expiry=timedelta(hours=1))
    TokenGrant.objects.create(token=token, scope=scope)
    return plain


def make_scaling_plan(
    partition: Partition, deployment: Deployment, role: str = "aggregated", **columns: Any
) -> ScalingPlan:
    """An open one: this partition gets an engine of the deployment in that role."""
    preview = services.preview_change([Move(partition.pk, deployment.pk, Role(role))])
    why = f"{deployment.name} {role} 1 to 2: ITL p95 70 ms of 50 ms"
    move = {"partition": partition.pk, "name": str(partition), "deployment": deployment.pk, "role": role}
    at = timezone.now()
    defaults = {
        "made_at": at, "seen_at": at, "version": preview["version"], "moves": [{**move, "why": why}],
        "preview": preview, "held_back": ["plans are applied by people: automatic applying is off"],
    }  # fmt: skip
    return ScalingPlan.objects.create(**(defaults | columns))
