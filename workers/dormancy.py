"""Which engines may sleep on a node, how deeply, and which of them go when memory runs short. No I/O, no clock.

An engine that sleeps gives its GPUs' memory back but for a rest - its CUDA context, graphs, communication buffers - and
lives on in host memory: at level 1 with its weights, at level 2 without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from workers.contract import ReplicaSpec

GIB = 2**30
# An estimate, not measured: a process with CUDA and PyTorch loaded. What is measured counts where it is more.
PROCESS_BYTES = 3 * GIB
REST_BYTES = 4 * GIB  # of one GPU: an engine that holds more does not sleep, it leaks
FREE_SHARE = 0.05  # of host memory stays available, whatever sleeps
UTILIZATION = 0.92  # what vLLM 0.32 takes of a GPU where nothing is said; it refuses to start where less is free
UTILIZATION_FLAGS = ("--gpu-memory-utilization", "--device-memory-utilization")


@dataclass(frozen=True, slots=True)
class Host:
    """Memory of the node, in bytes. `cap`: for all engines that sleep."""

    cap: int
    total: int
    available: int

    @property
    def spare(self) -> int:
        """What may be taken without pressing on the rest of the host."""
        return self.available - int(self.total * FREE_SHARE)


@dataclass(frozen=True, slots=True)
class Sleeper:
    """`since`: when it fell asleep, so when it was last of use. `rests`: what it holds of each of its GPUs."""

    marker: str
    spec: ReplicaSpec
    since: float
    host_bytes: int
    rests: Mapping[str, int] = field(default_factory=dict)


def host_bytes(level: int, weights_bytes: int, measured: int = 0) -> int:
    """What a sleeping engine counts for. Pinned memory may not show in a process's figures: the larger counts."""
    return max(measured, PROCESS_BYTES + (weights_bytes if level == 1 else 0))


def level(weights_bytes: int | None, sleepers: Iterable[Sleeper], host: Host) -> int:
    """1 where its weights have room in host memory; 2 where they have not, or are not known; 0: not even the process
    has, whoever leaves for it."""
    held = sum(one.host_bytes for one in sleepers)
    room = min(host.cap - held, host.spare)
    if weights_bytes and host_bytes(1, weights_bytes) <= room:
        return 1
    return 2 if host_bytes(2, 0) <= host.cap and host.spare > 0 else 0


def without_room(
    sleepers: Sequence[Sleeper], host: Host, starting: Iterable[ReplicaSpec], memory: Mapping[str, int]
) -> dict[str, str]:
    """By marker, why it goes: the longest asleep first. `starting`: engines that are to start or to wake, each of which
    needs its share of its GPUs; `memory`: bytes of each GPU."""
    starting = list(starting)
    woken = {one.content() for one in starting}
    oldest = sorted((one for one in sleepers if one.spec.content() not in woken), key=lambda one: one.since)
    gone = _for_host(oldest, sum(one.host_bytes for one in sleepers), host)
    for spec in starting:
        share = 1.0 - utilization(spec.args)
        for uuid in spec.gpus:
            there = [one for one in oldest if one.marker not in gone and uuid in one.rests]
            # Of the engine to be woken the rest is part of what it will hold.
            held, may = sum(one.rests[uuid] for one in there), int(memory.get(uuid, 0) * share)
            for one in there:
                if held <= may:
                    break
                gone[one.marker] = f"{spec.name} needs the memory that sleeping engines hold of its GPU"
                held -= one.rests[uuid]
    return gone


def utilization(args: Sequence[str]) -> float:
    """The share of a GPU that an engine takes by its arguments."""
    found = UTILIZATION
    for at, arg in enumerate(args):
        flag, _, value = arg.partition("=")
        if flag.replace("_", "-") in UTILIZATION_FLAGS:
            text = value or (args[at + 1] if at + 1 < len(args) else "")
            try:
                found = float(text)
            except ValueError:
                continue
    return found if 0 < found <= 1 else UTILIZATION


def is_rest(before_others: Mapping[str, int], used: Mapping[str, int | None], most: int = REST_BYTES) -> str:
    """Why an engine that says that it sleeps does not count as asleep, "" if it does. `before_others`: what others
    hold of each of its GPUs; `used`: what is in use there now, by the device itself."""
    for uuid, others in before_others.items():
        now = used.get(uuid)
        if now is None:
            return f"{uuid} does not tell how much of its memory is in use"
        if now - others > most:
            return f"it still holds {(now - others) / GIB:.1f} GiB of {uuid}"
    return ""


def _for_host(oldest: Sequence[Sleeper], held: int, host: Host) -> dict[str, str]:
    gone: dict[str, str] = {}
    lacking = max(held - host.cap, -host.spare)
    for one in oldest:
        if lacking <= 0:
            break
        gone[one.marker] = "host memory for engines that sleep is short"
        lacking -= one.host_bytes
    return gone
