"""Frozen values that the rules take and give. Rows and JSON become these at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.model_facts import ModelFacts
from controlplane.domain.problems import DomainError, Problem
from workers.contract import DeviceKind, Phase, Role

__all__ = [
    "DeploymentView",
    "DeviceView",
    "DomainError",
    "NodeStatus",
    "NodeView",
    "PartitionStatus",
    "PartitionView",
    "Phase",
    "Problem",
    "Role",
]


class NodeStatus(StrEnum):
    """Derived in health.node_status; never stored."""

    READY = "ready"
    SILENT = "silent"
    CORDONED = "cordoned"
    DRAINING = "draining"
    DRAINED = "drained"
    REVOKED = "revoked"
    NEVER_SEEN = "never_seen"


class PartitionStatus(StrEnum):
    """Derived in health.partition_status; never stored."""

    UNASSIGNED = "unassigned"
    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    ASLEEP = "asleep"
    CRASH_LOOPING = "crash_looping"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One GPU or CPU slot as its agent last reported it."""

    uuid: str
    index: int
    kind: str = DeviceKind.NVIDIA.value
    memory_bytes: int = 0
    name: str = ""
    health: str = "ok"  # ok | degraded | lost
    health_detail: str = ""
    foreign: bool = False  # a process of somebody else's is on it
    flag: str = ""  # why it did not pass its qualification
    present: bool = True  # in the node's last report
    mig_parent: str = ""
    peers: tuple[str, ...] = ()  # uuids reachable over NVLink

    @property
    def is_usable(self) -> bool:
        return self.present and self.health != "lost"

    @property
    def label(self) -> str:
        """What a person calls it: "GPU 3", "CPU slot 0"."""
        return f"CPU slot {self.index}" if self.kind == DeviceKind.CPU else f"GPU {self.index}"


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node's intent and what was last heard of it. Times are unix seconds of the server's clock."""

    name: str
    devices: tuple[DeviceView, ...] = ()
    engine_version: str = ""
    schedulable: bool = True
    draining: bool = False
    revoked: bool = False
    last_seen: float | None = None
    period_s: float = 1.0
    memory_bytes: int = 0
    partitions_in_use: int = 0  # with a deployment or a live process; 0 lets a draining node be drained


@dataclass(frozen=True, slots=True)
class PartitionView:
    """A partition: desired (deployment, role, generation) beside observed (phase, observed_generation, ...)."""

    id: int
    node_name: str
    name: str
    gpus: tuple[DeviceView, ...] = ()
    deployment: str | None = None
    role: Role | None = None
    generation: int = 0
    observed_generation: int = 0
    phase: Phase | None = None  # None = no process was ever reported for it
    restarts: int = 0
    node_last_seen: float | None = None
    engine_version: str = ""  # of the running engine, else of the program its node would start
    pool: bool = False  # a slot of the pool

    @property
    def is_cpu(self) -> bool:
        return any(gpu.kind == DeviceKind.CPU for gpu in self.gpus)

    @property
    def tp(self) -> int:
        """Tensor-parallel size: one engine spans all GPUs of its partition. More CPU slots are more threads and
        memory of one rank, not more ranks."""
        return 1 if self.is_cpu else len(self.gpus)

    @property
    def rank_memory_bytes(self) -> int:
        """Memory that one rank of its engine has: of its smallest GPU, or of all its CPU slots together."""
        sizes = [gpu.memory_bytes for gpu in self.gpus]
        return sum(sizes) if self.is_cpu else min(sizes, default=0)

    @property
    def label(self) -> str:
        return f"{self.node_name}/{self.name}"

    @property
    def has_process(self) -> bool:
        return self.phase is not None and self.phase is not Phase.EXITED


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """How a model is served, as far as placement asks."""

    name: str
    facts: ModelFacts = field(default_factory=ModelFacts.unknown)
    engine_args: tuple[str, ...] = ()
    prefill_args: tuple[str, ...] = ()
    decode_args: tuple[str, ...] = ()
    kv_connector: str = "NixlConnector"
    mode: str = "dedicated"

    def args_for(self, role: Role) -> tuple[str, ...]:
        """Engine arguments of a role: the common ones first, so that the role's own win."""
        own = {Role.PREFILL: self.prefill_args, Role.DECODE: self.decode_args}.get(role, ())
        return (*self.engine_args, *own)
