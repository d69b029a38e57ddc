"""Node and partition status, from facts and the clock. Nothing here is stored: it is asked for when looked at."""

from __future__ import annotations

from controlplane.domain.types import NodeStatus, NodeView, PartitionStatus, PartitionView, Phase

SILENT_AFTER_S = 10.0  # reports come each second; ten missed ones are not a hiccup
CRASH_LOOP_AFTER = 3  # starts in a row that ended without staying up

_STATUS = {
    Phase.STARTING: PartitionStatus.STARTING,
    Phase.READY: PartitionStatus.READY,
    Phase.DRAINING: PartitionStatus.DRAINING,
    Phase.STOPPING: PartitionStatus.STOPPING,
    Phase.ASLEEP: PartitionStatus.ASLEEP,
    Phase.DOZING: PartitionStatus.STOPPING,  # these two agents keep to themselves; one that told them breaks no page
    Phase.WAKING: PartitionStatus.STARTING,
}
# A released partition whose agent has not acted yet: what will become of the process it still has.
_RELEASED = {
    Phase.STARTING: PartitionStatus.STOPPING,  # nothing to drain
    Phase.READY: PartitionStatus.DRAINING,
    Phase.DRAINING: PartitionStatus.DRAINING,
    Phase.STOPPING: PartitionStatus.STOPPING,
    Phase.ASLEEP: PartitionStatus.STOPPING,
    Phase.DOZING: PartitionStatus.STOPPING,
    Phase.WAKING: PartitionStatus.STOPPING,
}


def is_silent(last_seen: float | None, now: float, silent_after_s: float = SILENT_AFTER_S) -> bool:
    """True where no report came for `silent_after_s`, or ever."""
    return last_seen is None or now - last_seen > silent_after_s


def node_status(node: NodeView, now: float, silent_after_s: float = SILENT_AFTER_S) -> NodeStatus:
    """What most needs saying first: a silent node may be cordoned as well, but silence is the news."""
    if node.revoked:
        return NodeStatus.REVOKED
    if node.last_seen is None:
        return NodeStatus.NEVER_SEEN
    if is_silent(node.last_seen, now, silent_after_s):
        return NodeStatus.SILENT
    if node.draining:
        return NodeStatus.DRAINING if node.partitions_in_use else NodeStatus.DRAINED
    return NodeStatus.READY if node.schedulable else NodeStatus.CORDONED


def partition_status(partition: PartitionView, now: float, silent_after_s: float = SILENT_AFTER_S) -> PartitionStatus:
    """Desired, phase and clock in one word."""
    if partition.has_process and is_silent(partition.node_last_seen, now, silent_after_s):
        return PartitionStatus.LOST
    if partition.deployment is None:
        return _released_status(partition)
    if is_crash_looping(partition):
        return PartitionStatus.CRASH_LOOPING
    if partition.phase in (Phase.DRAINING, Phase.STOPPING):
        return _STATUS[partition.phase]
    if partition.phase is None or partition.phase is Phase.EXITED or not _is_heard(partition):
        return PartitionStatus.PENDING
    return _STATUS[partition.phase]


def is_confirmed(partition: PartitionView) -> bool:
    """The agent says ready, of exactly what is desired now. An observed generation from the future (a restored
    database) confirms nothing: it speaks of a spec that this database never wrote."""
    return partition.deployment is not None and partition.phase is Phase.READY and _is_heard(partition)


def is_crash_looping(partition: PartitionView) -> bool:
    """Three starts in a row that did not stay up. A newer assignment begins with a clean record."""
    down = partition.phase in (None, Phase.STARTING, Phase.EXITED)
    return down and partition.restarts >= CRASH_LOOP_AFTER and _is_heard(partition)


def _released_status(partition: PartitionView) -> PartitionStatus:
    if partition.phase is None:
        return PartitionStatus.UNASSIGNED
    return _RELEASED.get(partition.phase, PartitionStatus.UNASSIGNED)


def _is_heard(partition: PartitionView) -> bool:
    return partition.observed_generation == partition.generation
