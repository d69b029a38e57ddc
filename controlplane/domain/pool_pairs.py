"""Which two pool slots take a model that is woken as a pair, one for prefill and one for decode, and who leaves them.
Both or none. No rows, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from controlplane.domain import pairing, pool
from controlplane.domain.placement import is_island
from controlplane.domain.pool import Slot, Worth
from controlplane.domain.types import PartitionView, Role

ACROSS = 24  # slots of each kind and role that are looked at for pairs over the network: the best of them
NONE = "no two pool slots hold this model as a pair"
BUSY = "no two slots that hold it as a pair are free, or of models that may leave"
NO_TWO_FREE = "no two slots that hold it as a pair are free"


@dataclass(frozen=True)
class Half:
    """A slot that holds one role of the model. `view`: of its engine-to-be, with the version that its node starts."""

    slot: Slot
    view: PartitionView

    @cached_property
    def kind(self) -> pairing.Kind:
        return pairing.kind(self.view)


@dataclass(frozen=True, slots=True)
class Found:
    """The slots to take, by role, with who leaves them, and `leaving`: further slots that those leave. No halves where
    no two may be taken. `reason` is for people."""

    halves: tuple[tuple[int, Role], ...]
    evicted: tuple[int, ...]
    leaving: tuple[int, ...]
    reason: str


def choose(
    prefill: Sequence[Half],
    decode: Sequence[Half],
    *,
    priority: int,
    min_residence_s: float,
    evict: bool = True,
    refusal: Callable[[Slot, Slot], str] = lambda first, second: "",
) -> Found:
    """Among slots that hold the role: two free ones first, the smallest, of equal ones those that are linked best and
    where weights lie; else so that the one most to be missed of those who leave is the least so. Only engines that
    can exchange KV. `refusal`: why two may not be taken all the same."""
    every = {half.slot.partition: half.slot for half in (*prefill, *decode)}
    leaving = pool.that_may_leave(list(every.values()), priority=priority, min_residence_s=min_residence_s)
    costs = _costs(leaving) if evict else {}
    able = [[half for half in halves if _may_take(half.slot, costs)] for halves in (prefill, decode)]
    ranked = sorted((_key(one, other, costs), one, other) for one, other in _pairs(able[0], able[1], costs))
    refused = ""
    for _, one, other in ranked:
        if not (why := refusal(one.slot, other.slot)):
            return _found(one, other)
        refused = refused or why
    return Found((), (), (), refused or _why_none(prefill, decode, evict=evict))


def to_keep(
    prefill: Sequence[Half],
    decode: Sequence[Half],
    *,
    priority: int,
    refusal: Callable[[Slot, Slot], str] = lambda first, second: "",
) -> frozenset[int]:
    """The two slots that one which waits is to have once both can be had: of models that it may make leave, busy now
    or there too shortly, those that are soonest missed the least. Empty: there are no such two."""
    every = {half.slot.partition: half.slot for half in (*prefill, *decode)}
    costs = _costs([slot for slot in every.values() if slot.resident and pool.may_ever_leave(slot.resident, priority)])
    able = [[half for half in halves if _may_take(half.slot, costs)] for halves in (prefill, decode)]
    ranked = sorted((_key(one, other, costs), one, other) for one, other in _pairs(able[0], able[1], costs))
    found = next(((one, other) for _, one, other in ranked if not refusal(one.slot, other.slot)), ())
    return frozenset(half.slot.partition for half in found)


def _costs(leaving: Sequence[Slot]) -> dict[int, Worth]:
    """By deployment, what its leaving costs."""
    worth, found = pool.worth(leaving), dict[int, Worth]()
    for slot in leaving:
        if slot.resident is not None:
            mine = worth(slot)
            found[slot.resident.deployment] = min(mine, found.get(slot.resident.deployment, mine))
    return found


def _may_take(slot: Slot, costs: dict[int, Worth]) -> bool:
    return slot.resident is None or (slot.resident.deployment in costs and not slot.failed)


def _pairs(prefill: Sequence[Half], decode: Sequence[Half], costs: dict[int, Worth]) -> Iterator[tuple[Half, Half]]:
    """All on one node, and the best over the network: of hundreds of slots the rest is no better."""
    matching: dict[tuple[pairing.Kind, pairing.Kind], bool] = {}

    def match(one: Half, other: Half) -> bool:
        key = one.kind, other.kind
        if key not in matching:
            matching[key] = not pairing.pair_problems(one.view, Role.PREFILL, one.view.engine_version, [other.view])
        return matching[key]

    firsts, seconds = _best(prefill, costs), _best(decode, costs)
    across = ((one, other) for one, other in product(firsts, seconds) if one.view.node_name != other.view.node_name)
    for one, other in (*_on_one_node(prefill, decode), *across):
        if one.slot.partition != other.slot.partition and match(one, other):
            yield one, other


def _on_one_node(prefill: Sequence[Half], decode: Sequence[Half]) -> Iterator[tuple[Half, Half]]:
    there: dict[str, list[Half]] = {}
    for half in decode:
        there.setdefault(half.view.node_name, []).append(half)
    return ((one, other) for one in prefill for other in there.get(one.view.node_name, ()))


def _best(halves: Sequence[Half], costs: dict[int, Worth]) -> list[Half]:
    """Of each kind."""
    found: dict[pairing.Kind, list[Half]] = {}
    for half in sorted(halves, key=lambda half: _alone(half.slot, costs)):
        mine = found.setdefault(half.kind, [])
        if len(mine) < ACROSS:
            mine.append(half)
    return [half for mine in found.values() for half in mine]


Alone = tuple[list[Worth], bool, bool, int, bool, int, int]
Key = tuple[list[Worth], int, int, int, int, int, int, int, int]


def _alone(slot: Slot, costs: dict[int, Worth]) -> Alone:
    """Smaller is taken sooner."""
    return (
        _evicted_worth([slot], costs), slot.failed, not slot.clear, slot.size, not slot.near, slot.memory_bytes,
        slot.partition,
    )  # fmt: skip


def _key(one: Half, other: Half, costs: dict[int, Worth]) -> Key:
    """Smaller is better; no two pairs have the same."""
    slots = (one.slot, other.slot)
    return (
        _evicted_worth(slots, costs),
        sum(slot.failed for slot in slots),
        sum(not slot.clear for slot in slots),
        sum(slot.size for slot in slots),
        _apart(one.view, other.view),
        -sum(slot.near for slot in slots),
        sum(slot.memory_bytes for slot in slots),
        one.slot.partition,
        other.slot.partition,
    )


def _evicted_worth(slots: Sequence[Slot], costs: dict[int, Worth]) -> list[Worth]:
    """The one most to be missed first: nobody's leaving is the least."""
    there = {slot.resident.deployment for slot in slots if slot.resident is not None}
    return sorted((costs[deployment] for deployment in there), reverse=True)


def _apart(one: PartitionView, other: PartitionView) -> int:
    if one.node_name != other.node_name:
        return 2
    return 0 if is_island((*one.gpus, *other.gpus)) else 1


def _found(one: Half, other: Half) -> Found:
    slots = (one.slot, other.slot)
    taken = {slot.partition for slot in slots}
    leaving = {slot.resident.deployment: slot.resident for slot in slots if slot.resident is not None}
    further = {slot for resident in leaving.values() for slot in resident.others} - taken
    # The one slot's other may be the other slot: all that they leave, less what is taken.
    halves = ((one.slot.partition, Role.PREFILL), (other.slot.partition, Role.DECODE))
    return Found(halves, tuple(leaving), tuple(sorted(further)), _why(one, other))


def _why(one: Half, other: Half) -> str:
    where = ("linked by NVLink", "on one node", "on two nodes")[_apart(one.view, other.view)]
    leaving = {slot.resident.deployment: slot.resident for slot in (one.slot, other.slot) if slot.resident}
    if leaving:
        return f"a pair of slots {where}; " + "; ".join(map(pool.why_it_leaves, leaving.values()))
    near = sum(half.slot.near for half in (one, other))
    lie = ("", ", and its weights lie on one of them", ", and its weights lie there")[near]
    return f"the smallest two free slots that hold it as a pair, {where}{lie}"


def _why_none(prefill: Sequence[Half], decode: Sequence[Half], *, evict: bool) -> str:
    free = [[Half(_emptied(half.slot), half.view) for half in halves] for halves in (prefill, decode)]
    if next(_pairs(free[0], free[1], {}), None) is None:
        return NONE
    return BUSY if evict else NO_TWO_FREE


def _emptied(slot: Slot) -> Slot:
    return Slot(slot.partition, slot.memory_bytes, gpus=slot.gpus)
