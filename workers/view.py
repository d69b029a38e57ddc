"""What the other threads see of the agent: a snapshot, replaced as a whole at every tick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.book import Record
from workers.contract import ReplicaSpec
from workers.qualification import Qualification
from workers.sleep import SleepReport


@dataclass(frozen=True, slots=True)
class View:
    generation: int = 0
    records: tuple[Record, ...] = ()
    waits: Mapping[int, tuple[ReplicaSpec, str]] = field(default_factory=dict)
    at: float = 0.0
    qualifications: tuple[Qualification, ...] = ()
    sleep: SleepReport | None = None

    def shape(self) -> tuple[object, ...]:
        """What of it is worth an extra report when it changes."""
        replicas = tuple(
            (r.partition, r.replica.phase, r.replica.spec.generation, r.process, r.message) for r in self.records
        )
        sleepers = tuple((s.partition, s.pid, s.leaving) for s in (self.sleep.sleepers if self.sleep else ()))
        return self.generation, replicas, tuple((q.id, q.state) for q in self.qualifications), sleepers
