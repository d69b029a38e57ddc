"""Which slots of the pool may be lent to a dedicated deployment whose own engines are full. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain.pool import Slot
from controlplane.domain.pool_sizes import Sized, spare

ANY = 1  # GPUs that every slot has; one on a CPU counts as one


@dataclass(frozen=True, slots=True)
class Held:
    """For pooled models, by the GPUs of a slot: `slots` in use or free, and `free` of them empty; `least` empty ones of
    any size."""

    slots: Mapping[int, int]
    free: Mapping[int, int]
    least: int


def lendable(own: Sequence[Slot], held: Held) -> set[int]:
    """Of the pool's `own` slots - those that are lent already, or somebody else's, are not among them - each one that
    it can do without: enough for pooled models are left, and enough of those are empty. Not all of them at once. One
    with a model may be lent when that no longer counts as active; whether it may leave is another question."""
    sized = [_sized(slot) for slot in own]
    empty = [_sized(slot) for slot in own if slot.resident is None]

    def may(slot: Slot) -> bool:
        one = _sized(slot)
        if not spare(sized, [one], held.slots, least=held.least):
            return False
        if slot.resident is not None:
            return not slot.resident.is_kept
        return bool(spare(empty, [one], held.free, least=held.least))

    return {slot.partition for slot in own if may(slot)}


def _sized(slot: Slot) -> Sized:
    return Sized(slot.partition, max(ANY, slot.gpus))
