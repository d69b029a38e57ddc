"""Which prefill and decode engines may work together.

The connector's handshake compares engine version, dtypes, attention backend and block size, and refuses or, worse,
garbles KV where they differ. A decode engine may have more GPUs than the prefill engine, whose blocks it then splits;
the other direction is the one that breaks.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.domain.engine_args import value_of
from controlplane.domain.types import DeploymentView, PartitionView, Problem, Role
from workers.contract import DeviceKind

OPPOSITE = {Role.PREFILL: Role.DECODE, Role.DECODE: Role.PREFILL}
Kind = tuple[int, str, frozenset[str]]
_ALIASES = {"half": "float16", "float": "float32", "fp8": "fp8_e4m3"}
_EQUAL_FLAGS = (
    ("--dtype", "pair-dtype", "dtype"),
    ("--kv-cache-dtype", "pair-kv-dtype", "KV cache dtype"),
    ("--block-size", "pair-block-size", "KV block size"),
    ("--attention-backend", "pair-attention-backend", "attention backend"),
    ("--quantization", "pair-quantization", "quantization"),
)
_FAMILY = {DeviceKind.NVIDIA: "NVIDIA GPUs", DeviceKind.MIG: "NVIDIA GPUs", DeviceKind.CPU: "CPU slots",
           DeviceKind.SIMULATED: "simulated GPUs"}  # fmt: skip


def argument_problems(deployment: DeploymentView) -> list[Problem]:
    """Where the arguments of the two roles would keep their engines from understanding each other's KV blocks."""
    problems = []
    for flag, code, what in _EQUAL_FLAGS:
        prefill, decode = (_value(deployment, role, flag) for role in (Role.PREFILL, Role.DECODE))
        if prefill != decode:
            problems.append(Problem(
                code, f"{deployment.name}: prefill has {what} {prefill}, decode has {decode}; they must be equal.",
                f"Move {flag} to the arguments of both roles.", forceable=True,
            ))  # fmt: skip
    return problems


def pair_problems(
    partition: PartitionView, role: Role, engine_version: str, peers: Sequence[PartitionView]
) -> list[Problem]:
    """Why an engine on this partition could not work with these peers, which have the opposite role."""
    return [
        *_tp_problems(partition, role, peers),
        *_version_problems(engine_version, peers),
        *_kind_problems(partition, peers),
    ]


def kind(partition: PartitionView) -> Kind:
    """All of it that `pair_problems` asks about: what holds for two partitions holds for all others of their kinds."""
    return partition.tp, partition.engine_version, frozenset(_families(partition))


def partners(
    partition: PartitionView, deployment: str, role: Role, peers: Sequence[PartitionView]
) -> list[PartitionView]:
    """Those of `peers` that an engine of this role would exchange KV with."""
    wanted = OPPOSITE.get(role)
    return [p for p in peers if p.id != partition.id and p.deployment == deployment and p.role is wanted]


def _value(deployment: DeploymentView, role: Role, flag: str) -> str:
    given = value_of(deployment.args_for(role), flag) or "auto"
    if flag == "--dtype" and given == "auto" and deployment.facts.dtype in ("bfloat16", "float16"):
        given = deployment.facts.dtype
    return _ALIASES.get(given, given)


def _tp_problems(partition: PartitionView, role: Role, peers: Sequence[PartitionView]) -> list[Problem]:
    mine = partition.tp
    wrong = [peer for peer in peers if (mine > peer.tp if role is Role.PREFILL else peer.tp > mine)]
    if not wrong:
        return []
    prefill, decode = (mine, wrong[0].tp) if role is Role.PREFILL else (wrong[0].tp, mine)
    return [Problem(
        "pair-prefill-tp",
        f"Prefill would span {prefill} GPUs and decode {decode} ({wrong[0].label}); decode needs at least as many.",
        "Choose a partition so that decode has at least as many GPUs as prefill.", forceable=True,
    )]  # fmt: skip


def _version_problems(engine_version: str, peers: Sequence[PartitionView]) -> list[Problem]:
    """Not forceable: the handshake refuses it in any case. An unknown version is not held against anyone."""
    other = [peer for peer in peers if engine_version and peer.engine_version not in ("", engine_version)]
    if not other:
        return []
    return [Problem(
        "pair-engine-version",
        f"This engine would be version {engine_version}, {other[0].label} has {other[0].engine_version}; "
        "pairs need equal versions.",
        "Choose a node with the same engine version, or upgrade the pair together.",
    )]  # fmt: skip


def _kind_problems(partition: PartitionView, peers: Sequence[PartitionView]) -> list[Problem]:
    mine = _families(partition)
    other = [peer for peer in peers if mine and _families(peer) and _families(peer) != mine]
    if not other:
        return []
    return [Problem(
        "pair-device-kinds",
        f"{partition.label} has {' and '.join(sorted(mine))}, {other[0].label} has "
        f"{' and '.join(sorted(_families(other[0])))}; their engines lay out KV blocks differently.",
        "Choose a partition of the same kind.",
    )]  # fmt: skip


def _families(partition: PartitionView) -> set[str]:
    return {_FAMILY.get(DeviceKind(gpu.kind), gpu.kind) for gpu in partition.gpus}
