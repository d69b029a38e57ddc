"""Ready-made splits of a node with a role for each partition, and whether one would work on a given node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controlplane.domain import placement
from controlplane.domain.engine_args import value_of
from controlplane.domain.health import SILENT_AFTER_S
from controlplane.domain.partitions import validate_split
from controlplane.domain.types import DeploymentView, DomainError, NodeView, PartitionView, Problem, Role


@dataclass(frozen=True, slots=True)
class NodePlan:
    """`roles[i]` is what the partition of `groups[i]` (GPU positions) does. `engine_args` are what the deployment
    needs for it on the smallest GPUs it is meant for."""

    key: str
    title: str
    groups: tuple[tuple[int, ...], ...]
    roles: tuple[Role, ...]
    engine_args: tuple[str, ...] = ()

    @property
    def gpu_count(self) -> int:
        return sum(len(group) for group in self.groups)


def gpt_oss_120b_4p4d() -> tuple[NodePlan, NodePlan]:
    """gpt-oss-120b on one 8-GPU node with half of the GPUs in each phase: eight engines of one GPU, or two of four,
    which answer each request sooner and hold far more KV.

    Its weights take 71 of 80 GB when loaded, and the engine's usual trial run of 1024 sequences over 201,088 tokens
    the rest. One GPU has room for a full context only with fewer sequences and more of its memory.
    """
    singles = NodePlan(
        key="gpt-oss-120b-4p4d",
        title="4p+4d of 1 GPU",
        groups=tuple((gpu,) for gpu in range(8)),
        roles=(Role.PREFILL,) * 4 + (Role.DECODE,) * 4,
        engine_args=("--gpu-memory-utilization", "0.95", "--max-num-seqs", "128"),
    )
    fours = NodePlan(
        key="gpt-oss-120b-tp4",
        title="1p x TP4 + 1d x TP4",
        groups=((0, 1, 2, 3), (4, 5, 6, 7)),
        roles=(Role.PREFILL, Role.DECODE),
    )
    return singles, fours


PLANS: dict[str, NodePlan] = {plan.key: plan for plan in gpt_oss_120b_4p4d()}


def node_plan(key: str) -> NodePlan:
    """The plan of that key; DomainError where there is none."""
    if key not in PLANS:
        fix = f"Choose one of {', '.join(PLANS)}."
        raise DomainError(Problem("plan-unknown", f"'{key[:40]}' is not a plan.", fix))
    return PLANS[key]


def plan_problems(
    plan: NodePlan,
    deployment: DeploymentView,
    *,
    node: NodeView,
    now: float,
    silent_after_s: float = SILENT_AFTER_S,
) -> list[Problem]:
    """Why this plan can't be laid over this node; empty when it can. Each kind of problem is told once."""
    devices = sorted(node.devices, key=lambda device: device.index)
    if len(devices) != plan.gpu_count:
        message = f"{plan.title} needs {plan.gpu_count} GPUs; {node.name} has {len(devices)}."
        return [Problem("plan-does-not-fit", message, "Choose a node of that size, or split it by hand.")]
    groups = [[devices[position].index for position in group] for group in plan.groups]
    if problems := validate_split(devices, groups):
        return problems
    partitions = _as_partitions(plan, deployment, node, groups)
    found = [
        problem
        for partition, role in zip(partitions, plan.roles, strict=True)
        for problem in placement.check(
            partition, deployment, role, node=node, peers=partitions, now=now, silent_after_s=silent_after_s
        )
    ]
    once = list({problem.code: problem for problem in reversed(found)}.values())[::-1]
    return [_with_arguments(problem, plan, deployment) for problem in once]


def _with_arguments(problem: Problem, plan: NodePlan, deployment: DeploymentView) -> Problem:
    """Where memory is short and the deployment lacks the plan's arguments, those are the way out."""
    flags = [arg for arg in plan.engine_args if arg.startswith("--")]
    if problem.code != "memory" or all(value_of(deployment.engine_args, flag) is not None for flag in flags):
        return problem
    return replace(problem, fix=f"Give {deployment.name} the arguments {' '.join(plan.engine_args)}.")


def _as_partitions(
    plan: NodePlan, deployment: DeploymentView, node: NodeView, groups: Sequence[Sequence[int]]
) -> list[PartitionView]:
    """The partitions as they would be. Negative ids: they exist nowhere yet."""
    by_index = {device.index: device for device in node.devices}
    return [
        PartitionView(
            id=-1 - number,
            node_name=node.name,
            name=f"p{number}",
            gpus=tuple(by_index[index] for index in group),
            deployment=deployment.name,
            role=role,
            node_last_seen=node.last_seen,
            engine_version=node.engine_version,
        )
        for number, (group, role) in enumerate(zip(groups, plan.roles, strict=True))
    ]
