"""A fleet of simulated nodes as rows and figures, for benches that need thousands of GPUs and none of their hosts."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from django.db import connection

from controlplane.domain.model_facts import from_config
from controlplane.fleet.models import Deployment, Gpu, Node, Partition, RegisteredModel
from controlplane.telemetry import latest
from controlplane.telemetry.latest import EngineFigures, Latest
from workers.contract import DeviceSample, HostSample

GIB = 2**30
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
SHARES = 10  # a second is divided into so many pieces
ROLES = ("prefill", "decode", "decode", "")  # of a node's partitions, which share its GPUs evenly


def make(count: int, gpus: int = 8, *, models: int = 12, first: int = 0) -> list[Node]:
    """`count` nodes of `gpus` GPUs in four partitions, three of them serving, as a settled fleet leaves them. `first`:
    the number in the name of the first of them."""
    now = datetime.now(UTC)
    deployments = _deployments(models)
    nodes = Node.objects.bulk_create([_node(first + n, now) for n in range(count)], batch_size=500)
    partitions = Partition.objects.bulk_create(
        [_partition(node, place, deployments, now) for node in nodes for place in range(min(gpus, len(ROLES)))],
        batch_size=500,
    )
    by_node = {(row.node_id, row.name): row for row in partitions}
    Gpu.objects.bulk_create([_gpu(node, i, gpus, by_node) for node in nodes for i in range(gpus)], batch_size=500)
    return nodes


class Reports:
    """What the reports of all `nodes` leave behind, once a second and spread over it, until stopped."""

    def __init__(self, nodes: Sequence[Node], gpus: int = 8) -> None:
        self._nodes, self._gpus = nodes, gpus
        self._pks = [node.pk for node in nodes]
        self._parts: dict[int, list[int]] = {}
        for pk, node in Partition.objects.order_by("pk").values_list("pk", "node_id"):
            self._parts.setdefault(node, []).append(pk)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Reports:
        self.once(self._nodes)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def once(self, nodes: Sequence[Node]) -> None:
        noise = random.Random()
        latest.keep(*(figures(node, self._parts.get(node.pk, []), self._gpus, noise) for node in nodes))

    def _run(self) -> None:
        share = -(-len(self._nodes) // SHARES)
        turn = 0
        while not self._ended.wait(1 / SHARES):
            at = turn % SHARES * share
            if nodes := self._nodes[at : at + share]:
                self.once(nodes)
            if turn % (3 * SHARES) == 0:
                Node.objects.filter(pk__in=self._pks).update(last_seen=datetime.now(UTC))
            turn += 1
        connection.close()


def figures(node: Node, partitions: Sequence[int], gpus: int, noise: random.Random) -> Latest:
    load = [noise.random() for _ in range(gpus)]
    return Latest(
        node=node.pk,
        seen=time.time(),
        skew_s=0.002,
        host=HostSample(
            cpu_utilization=0.2, cpu_count=96, memory_bytes=1024 * GIB, memory_used_bytes=212 * GIB, disk_free_bytes=GIB
        ),
        devices={
            _uuid(node, i): DeviceSample(
                uuid=_uuid(node, i),
                utilization=round(use, 3),
                memory_used_bytes=72 * GIB,
                power_w=120 + 540 * use,
                temperature_c=38 + 34 * use,
                sm_clock_mhz=1980,
            )
            for i, use in enumerate(load)
        },
        engines={
            pk: EngineFigures(running=6.0, waiting=1.0, kv_usage=load[0], generation_tps=900.0, ttft_ms=310.0)
            for pk in partitions[:3]
        },
        process_bytes=dict.fromkeys(partitions[:3], 70 * GIB),
    )


def _deployments(count: int) -> list[Deployment]:
    facts = from_config(LLAMA, 15 * GIB).to_dict()
    of = {"kind": "folder", "source": "/models/bench", "facts": facts}
    model, _ = RegisteredModel.objects.get_or_create(name="bench-8b", defaults=of)
    names = [f"bench-{n:02d}" for n in range(count)]
    return [Deployment.objects.get_or_create(name=name, defaults={"model": model})[0] for name in names]


def _node(number: int, now: datetime) -> Node:
    name = f"sim-{number:04d}"
    return Node(
        name=name,
        address="127.0.0.1",
        labels={"rack": f"r{number // 16:03d}"},
        token_hash=hashlib.sha256(f"bench-{name}".encode()).hexdigest(),
        instance=name,
        boot="b1",
        last_seen=now,
        generation=3,
        observed_generation=3,
        clock_skew_s=0.002,
        agent_version="bench",
        engine_version="simulated",
        driver="simulated",
        simulated=True,
        memory_bytes=1024 * GIB,
        cpu_count=96,
    )


def _partition(node: Node, place: int, deployments: Sequence[Deployment], now: datetime) -> Partition:
    role = ROLES[place]
    row = Partition(node=node, name=f"p{place}", generation=3, observed_generation=3)
    if role:
        row.deployment, row.role = deployments[node.pk % len(deployments)], role
        row.phase, row.phase_since, row.observed_role = "ready", now, role
        row.endpoint, row.pid, row.ready_after_s = f"http://127.0.0.1:{18100 + place}", 4242, 21.4
        row.engine_version, row.verified_generation = "simulated", 3
    return row


def _gpu(node: Node, index: int, gpus: int, partitions: dict[tuple[int, str], Partition]) -> Gpu:
    place = index * min(gpus, len(ROLES)) // gpus
    return Gpu(
        node=node,
        uuid=_uuid(node, index),
        index=index,
        kind="simulated",
        name="Simulated H100 80GB",
        memory_bytes=80 * GIB,
        partition=partitions[node.pk, f"p{place}"],
    )


def _uuid(node: Node, index: int) -> str:
    return f"GPU-sim-{node.pk}-{index}"
