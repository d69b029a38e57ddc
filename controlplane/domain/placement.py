"""Where a role of a deployment may go: what forbids a partition, and which of the rest is best, with the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from controlplane.domain import memory, pairing
from controlplane.domain.engine_args import int_value, value_of
from controlplane.domain.health import SILENT_AFTER_S, node_status
from controlplane.domain.partitions import device_problems
from controlplane.domain.types import (
    DeploymentView,
    DeviceView,
    NodeStatus,
    NodeView,
    PartitionView,
    Problem,
    Role,
)

CPU_CONTEXT_TOKENS = 2048  # what the agent asks for on CPU slots where the deployment does not say

_NODE_REFUSALS = {
    NodeStatus.REVOKED: ("node-revoked", "has been revoked", "Join it again with a new token."),
    NodeStatus.NEVER_SEEN: ("node-never-seen", "has not reported yet", "Start its agent."),
    NodeStatus.SILENT: ("node-silent", "is silent", "See that its agent runs and reaches the control plane."),
    NodeStatus.DRAINING: ("node-draining", "is draining", "Choose another node, or uncordon it."),
    NodeStatus.DRAINED: ("node-draining", "has been drained", "Choose another node, or uncordon it."),
    NodeStatus.CORDONED: ("node-cordoned", "is cordoned", "Uncordon it, or choose another node."),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One partition looked at: with problems it is refused, without them it has a score and the reasons for it."""

    partition: PartitionView
    score: float = 0.0
    reasons: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    fit: memory.MemoryFit | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where it may go, best first, and where not."""

    ranked: tuple[Candidate, ...]
    refused: tuple[Candidate, ...]


def check(
    partition: PartitionView,
    deployment: DeploymentView,
    role: Role,
    *,
    node: NodeView,
    peers: Sequence[PartitionView] = (),
    now: float,
    silent_after_s: float = SILENT_AFTER_S,
) -> list[Problem]:
    """Why this role of this deployment can't run on this partition; empty when it can.

    `peers` are the deployment's other partitions, whatever their role.
    """
    problems = [
        *_node_problems(node, now, silent_after_s),
        *_device_problems(partition, deployment),
        *_model_problems(partition, deployment, role),
        *_memory_problems(partition, deployment, role),
    ]
    if role in pairing.OPPOSITE:
        partners = pairing.partners(partition, deployment.name, role, peers)
        version = _version_here(partition, deployment, node)
        problems += [
            *pairing.argument_problems(deployment),
            *pairing.pair_problems(partition, role, version, partners),
        ]
    return problems


def blocking(problems: Sequence[Problem], *, force: bool = False) -> list[Problem]:
    """Those that refuse it; with `force`, only those that nobody may overrule."""
    return [problem for problem in problems if not (force and problem.forceable)]


def memory_fit(
    partition: PartitionView,
    deployment: DeploymentView,
    role: Role,
    *,
    concurrency: int = 1,
    context_tokens: int | None = None,
) -> memory.MemoryFit:
    """The numbers for this engine here, with the deployment's own arguments counted."""
    cpu = partition.is_cpu
    place = (max(1, partition.tp), partition.rank_memory_bytes, cpu)
    return _fit(deployment, role, place, concurrency, context_tokens or _context(deployment, role, cpu=cpu))


@lru_cache(maxsize=4096)
def _fit(
    deployment: DeploymentView, role: Role, place: tuple[int, int, bool], concurrency: int, context_tokens: int
) -> memory.MemoryFit:
    """Remembered: of hundreds of partitions most are alike. `place`: tensor-parallel size, bytes a rank, CPU slots."""
    tp, gpu_memory_bytes, cpu = place
    return memory.fit(
        deployment.facts,
        tp=tp,
        gpu_memory_bytes=gpu_memory_bytes,
        concurrency=concurrency,
        context_tokens=context_tokens,
        cpu=cpu,
        shape=memory.engine_shape(deployment.args_for(role), cpu=cpu),
    )


def candidates(
    places: Sequence[tuple[PartitionView, NodeView]],
    deployment: DeploymentView,
    role: Role,
    *,
    peers: Sequence[PartitionView] = (),
    now: float,
    silent_after_s: float = SILENT_AFTER_S,
) -> Ranking:
    """All places filtered, then ordered: best score first, ties by name so that the order never flickers."""
    looked = [
        _look(partition, node, deployment, role, peers=peers, now=now, silent_after_s=silent_after_s)
        for partition, node in places
    ]
    ranked = sorted((c for c in looked if not c.problems), key=lambda c: (-c.score, c.partition.label))
    refused = sorted((c for c in looked if c.problems), key=lambda c: c.partition.label)
    return Ranking(tuple(ranked), tuple(refused))


def _look(
    partition: PartitionView,
    node: NodeView,
    deployment: DeploymentView,
    role: Role,
    *,
    peers: Sequence[PartitionView],
    now: float,
    silent_after_s: float,
) -> Candidate:
    problems = list(_taken(partition))
    problems += check(partition, deployment, role, node=node, peers=peers, now=now, silent_after_s=silent_after_s)
    fit = memory_fit(partition, deployment, role)
    if problems:
        return Candidate(partition, problems=tuple(problems), fit=fit)
    scored = list(_scores(partition, deployment, role, fit, peers))
    return Candidate(partition, round(sum(s for s, _ in scored), 3), tuple(reason for _, reason in scored), fit=fit)


def _taken(partition: PartitionView) -> Iterator[Problem]:
    if partition.deployment is not None:
        yield Problem("partition-taken", f"{partition.label} runs {partition.deployment}.", "Release it first.")


def _scores(
    partition: PartitionView,
    deployment: DeploymentView,
    role: Role,
    fit: memory.MemoryFit,
    peers: Sequence[PartitionView],
) -> Iterator[tuple[float, str]]:
    """(points, reason). Links weigh most as each token or block crosses them, then waste, then spread."""
    if partition.tp > 1:
        linked = is_island(partition.gpus)
        yield (3.0 if linked else 0.0), ("its GPUs share NVLink" if linked else "its GPUs do not all share NVLink")
    yield from _partner_scores(partition, pairing.partners(partition, deployment.name, role, peers))
    if fit.needed_bytes is not None and fit.available_bytes:
        used = min(1.0, fit.needed_bytes / fit.available_bytes)
        yield 2.0 * used, f"the model with one full request takes {used:.0%} of the memory"
    same = sum(
        1 for p in peers
        if p.id != partition.id and p.deployment == deployment.name and p.role is role
        and p.node_name == partition.node_name
    )  # fmt: skip
    yield -1.0 * same, (f"{same} more of this role on the node" if same else "the first of this role on the node")


def _partner_scores(partition: PartitionView, partners: Sequence[PartitionView]) -> Iterator[tuple[float, str]]:
    near = [p for p in partners if p.node_name == partition.node_name]
    if any(is_island((*partition.gpus, *p.gpus)) for p in near):
        yield 2.0, "NVLink to its partner"
    elif near:
        yield 1.0, "its partner is on the same node"
    elif partners:
        yield 0.0, "KV blocks would cross the network to its partner"


def is_island(gpus: Sequence[DeviceView]) -> bool:
    """Each of these reaches each other over NVLink."""
    return all(other.uuid in gpu.peers for gpu in gpus for other in gpus if other.uuid != gpu.uuid)


def _node_problems(node: NodeView, now: float, silent_after_s: float) -> Iterator[Problem]:
    status = node_status(node, now, silent_after_s)
    if status in _NODE_REFUSALS:
        code, what, fix = _NODE_REFUSALS[status]
        age = f" ({now - node.last_seen:.0f} s)" if status is NodeStatus.SILENT and node.last_seen else ""
        yield Problem(code, f"Node {node.name} {what}{age}.", fix)
    if status is NodeStatus.SILENT and not node.schedulable:
        yield Problem("node-cordoned", f"Node {node.name} is cordoned.", _NODE_REFUSALS[NodeStatus.CORDONED][2])


def _device_problems(partition: PartitionView, deployment: DeploymentView) -> Iterator[Problem]:
    if not partition.gpus:
        yield Problem("partition-empty", f"{partition.label} has no GPU.", "Give it one, or delete it.")
        return
    yield from device_problems(partition.label, partition.gpus)
    for gpu in partition.gpus:
        if gpu.foreign and gpu.is_usable:
            yield Problem("gpu-foreign", f"{gpu.label} of {partition.label} is used by a process of somebody else.",
                          "Stop that process, or choose another partition.")  # fmt: skip
        if gpu.flag and partition.deployment != deployment.name:  # what it serves already may change its role there
            yield Problem("gpu-below-bar",
                          f"{gpu.label} of {partition.label} did not pass its qualification: {gpu.flag}.",
                          "Measure it again, or accept it as it is, on its node's page.")  # fmt: skip
        if gpu.health == "degraded":
            detail = f": {gpu.health_detail}" if gpu.health_detail else ""
            yield Problem("gpu-degraded", f"{gpu.label} of {partition.label} is degraded{detail}.",
                          "Have it checked, or choose another partition.", forceable=True)  # fmt: skip


def _model_problems(partition: PartitionView, deployment: DeploymentView, role: Role) -> Iterator[Problem]:
    facts, tp = deployment.facts, partition.tp
    if facts.heads and tp and facts.heads % tp:
        yield Problem("tp-does-not-divide-heads",
                      f"{tp} GPUs cannot share the {facts.heads} attention heads of {deployment.name} evenly.",
                      f"Choose a partition of {_lawful(facts.heads)} GPUs.")  # fmt: skip
    elif facts.kv_heads and tp and not facts.is_mla and facts.kv_heads % tp and tp % facts.kv_heads:
        yield Problem("tp-does-not-divide-kv-heads",
                      f"{tp} GPUs can neither share nor repeat the {facts.kv_heads} KV heads of {deployment.name}.",
                      "Choose a partition whose size divides them or is a multiple of them.")  # fmt: skip
    if role in pairing.OPPOSITE and facts.is_hybrid:
        yield Problem("hybrid-disaggregated",
                      f"{deployment.name} is a hybrid model; its running state may arrive garbled in a decode engine.",
                      "Use the aggregated role.", forceable=True)  # fmt: skip
    if role in pairing.OPPOSITE and not deployment.kv_connector:
        yield Problem("no-kv-connector", f"{deployment.name} has no KV connector to hand over KV blocks in {role}.",
                      "Choose a connector for the deployment, or the aggregated role.")  # fmt: skip


def _memory_problems(partition: PartitionView, deployment: DeploymentView, role: Role) -> Iterator[Problem]:
    """Refused where not even one request of the full context fits, for there the engine refuses to start. Forceable:
    the overhead is an estimate until an engine has run."""
    if not partition.gpus:
        return
    fit = memory_fit(partition, deployment, role)
    if fit.fits_at_best is not False:
        return
    yield Problem(
        "memory",
        f"{deployment.name} needs {_gb(fit.needed_bytes or 0)} of memory per GPU for one request of "
        f"{fit.context_tokens} tokens (weights {_gb(fit.weights_bytes or 0)}, KV {_gb(fit.kv_bytes or 0)}, other "
        f"{_gb(fit.overhead_bytes)}); {partition.label} offers {_gb(fit.available_bytes)}.",
        "Choose a partition with more or larger GPUs, or lower --max-model-len.", forceable=True,
    )  # fmt: skip


def _context(deployment: DeploymentView, role: Role, *, cpu: bool) -> int:
    """The longest request the engine would take. With "auto" it takes what fits, so that one block is enough."""
    args = deployment.args_for(role)
    given = int_value(args, "--max-model-len")
    if given is not None and given > 0:
        return given
    if value_of(args, "--max-model-len") is not None:
        return 1
    longest = deployment.facts.context_length or CPU_CONTEXT_TOKENS
    return min(longest, CPU_CONTEXT_TOKENS) if cpu else longest


def _version_here(partition: PartitionView, deployment: DeploymentView, node: NodeView) -> str:
    """A running engine of this deployment is relabelled and keeps its version; else the node starts its own."""
    keeps = partition.deployment == deployment.name and partition.has_process
    return (partition.engine_version if keeps else "") or node.engine_version


def _lawful(heads: int) -> str:
    return ", ".join(str(size) for size in (1, 2, 4, 8, 16) if heads % size == 0)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
