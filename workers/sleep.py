"""What the control plane and a node say to each other of engines that sleep in pool slots. Imports nothing of ours."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0)]
MOST_SLEEPERS = 256  # of one node


class SleeperStatus(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One engine process that sleeps. `generation` is of the spec that it was last awake under."""

    partition: Count
    deployment: Text
    generation: Count
    level: Annotated[int, Meta(ge=1, le=2)]  # 1: its weights lie in host memory; 2: they are read again when it wakes
    asleep_s: float = 0.0
    pid: int = 0
    host_bytes: Count = 0  # what it counts for in the node's budget
    gpu_bytes: Count = 0  # what it still holds of the slot's GPUs, all of them together
    leaving: bool = False  # it is being stopped


class SleepReport(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """Of the node as a whole. `why_not`: why no engine is put to sleep there; "" where it may be."""

    why_not: Text = ""
    cap_bytes: Count = 0  # of host memory, for all engines that sleep
    held_bytes: Count = 0
    sleepers: Annotated[tuple[SleeperStatus, ...], Meta(max_length=MOST_SLEEPERS)] = ()
