"""Which pool slot takes a model that is asked for, who leaves it, and how often a start is tried. No rows, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

TRIES = 2  # starts before whoever waits is told that it cannot be had
BACKOFF_S = 30.0
BACKOFF_CAP_S = 600.0
GIB = 2**30
Worth = tuple[bool, bool, int, float, float, int]


@dataclass(frozen=True, slots=True)
class Resident:
    """The model in a slot. `in_flight` and `idle_s` are None where they are not known: then it stays. Times in seconds,
    `resident_s` since it has been ready. `return_chance`: that it is asked for again soon, by the forecast. `lent`: to
    a dedicated deployment, whose own engines serve it too: it leaves before any other, for whoever is asked for.
    `others`: the slots that it leaves together with this one, as the other half of a pair, and `others_gpus` theirs."""

    deployment: int
    in_flight: int | None
    idle_s: float | None
    resident_s: float
    keep_alive_s: float
    priority: int = 0
    return_chance: float | None = None
    lent: bool = False
    others: tuple[int, ...] = ()
    others_gpus: int = 0

    @property
    def is_idle(self) -> bool:
        return self.in_flight == 0 and self.idle_s is not None

    @property
    def is_kept(self) -> bool:
        """Asked for so lately that it counts as active."""
        return not self.is_idle or (self.idle_s or 0.0) < self.keep_alive_s


@dataclass(frozen=True, slots=True)
class Slot:
    """`clear`: no process has its devices. `failed`: the model that is asked for did not start there lately. `near`:
    its weights lie on the slot's node. `asleep`: its engine sleeps in the slot."""

    partition: int
    memory_bytes: int
    resident: Resident | None = None
    clear: bool = True
    failed: bool = False
    gpus: int = 1
    near: bool = False
    asleep: bool = False

    @property
    def size(self) -> int:
        """Hosts of one make differ by a few MiB: in whole GiB they do not."""
        return -(-self.memory_bytes // GIB)


@dataclass(frozen=True, slots=True)
class Choice:
    """The slot to take and the deployment that leaves it; no slot where none may be taken. `reason` is for people.
    `also`: the other slots that the same deployment leaves by it."""

    slot: int | None
    evicted: int | None
    reason: str
    also: tuple[int, ...] = ()

    @property
    def emptied(self) -> frozenset[int]:
        """Every slot that somebody leaves."""
        return frozenset() if self.evicted is None or self.slot is None else frozenset((self.slot, *self.also))


def choose(slots: Sequence[Slot], *, priority: int, min_residence_s: float) -> Choice:
    """Among slots that hold the model: one where its engine sleeps and nobody is kept, or a free one, the smallest, of
    equal ones one where its weights lie; else that of the idle model least worth."""
    if not slots:
        return Choice(None, None, "no slot of the pool is large enough for it and open to pooled models")
    beds = [slot for slot in slots if slot.asleep and not slot.failed]
    if open_beds := [slot for slot in beds if _is_open(slot, priority, min_residence_s)]:
        return _bed(min(open_beds, key=lambda slot: (slot.resident is not None, _room(slot))))
    free = [slot for slot in slots if slot.resident is None]
    if free:
        slot = min(free, key=_room)
        near = ", and its weights lie on that node" if slot.near else ""
        return Choice(slot.partition, None, f"the smallest free slot that holds it{near}")
    leaving = that_may_leave(slots, priority=priority, min_residence_s=min_residence_s)
    if not leaving:
        return Choice(None, None, "every slot that holds it is busy, taken too lately, or of a higher priority")
    return _left(min(leaving, key=worth(leaving)))


def that_may_leave(slots: Sequence[Slot], *, priority: int, min_residence_s: float) -> list[Slot]:
    """Those whose model may be made to leave by one of that priority which is asked for."""
    return [
        slot
        for slot in slots
        if slot.resident and not slot.failed and _may_leave(slot.resident, priority, min_residence_s)
    ]


def to_free(slots: Sequence[Slot], *, free: int, min_residence_s: float) -> list[Choice]:
    """Who leaves so that `free` slots are empty before anybody asks: only models that no longer count as active, the
    least worth first. Fewer than wanted where there are no more; a pair leaves both of its own."""
    missing = free - sum(slot.resident is None for slot in slots)
    leaving = [
        slot
        for slot in slots
        if slot.resident and not slot.resident.is_kept and slot.resident.resident_s >= min_residence_s
    ]
    found: list[Choice] = []
    gone: set[int] = set()
    there = {slot.partition for slot in slots}
    for slot in sorted(leaving, key=worth(leaving)):
        if len(gone & there) >= missing:
            break
        if slot.partition not in gone:
            found.append(_left(slot))
            gone |= found[-1].emptied
    return found


def to_free_by_size(
    slots: Sequence[Slot], *, free: Mapping[int, int], at_least: int, min_residence_s: float
) -> list[Choice]:
    """The same where slots have several sizes: `free` by their GPUs, `at_least` of any. What one size lacks is taken
    from the next larger one, whose slots hold what the smaller ones hold."""
    found: list[Choice] = []
    gone: set[int] = set()
    lacking = 0
    for gpus in sorted({slot.gpus for slot in slots}):
        mine = {slot.partition for slot in slots if slot.gpus == gpus}
        rest = [slot for slot in slots if slot.partition in mine - gone]
        wanted = lacking + sum(count for size, count in free.items() if _nearest(size, slots) == gpus)
        leaving = to_free(rest, free=wanted - len(gone & mine), min_residence_s=min_residence_s)
        gone = gone.union(*(choice.emptied for choice in leaving))
        lacking = max(0, wanted - sum(slot.resident is None for slot in rest) - len(gone & mine))
        found += leaving
    rest = [slot for slot in slots if slot.partition not in gone]
    return found + to_free(rest, free=at_least - len(gone), min_residence_s=min_residence_s)


def to_free_gpus(slots: Sequence[Slot], gpus: int, *, most: int, min_residence_s: float) -> list[Choice]:
    """Who leaves so that free slots have so many GPUs, `most` at once."""
    missing = gpus - sum(slot.gpus for slot in slots if slot.resident is None)
    size = {slot.partition: slot.gpus for slot in slots}
    found: list[Choice] = []
    everybody = sum(slot.resident is None for slot in slots) + most
    for choice in to_free(slots, free=everybody, min_residence_s=min_residence_s):
        if missing <= 0:
            break
        found.append(choice)
        missing -= sum(size.get(slot, 0) for slot in choice.emptied)
    return found


def _nearest(gpus: int, slots: Sequence[Slot]) -> int | None:
    """The smallest size of slots that has as many; None: no slot is so large."""
    return min((slot.gpus for slot in slots if slot.gpus >= gpus), default=None)


def to_take_back(slots: Sequence[Slot], *, min_residence_s: float) -> list[Choice]:
    """Lent slots that their deployment has done without for its keep-alive, whether or not anybody needs them."""
    return [
        Choice(s.partition, r.deployment, f"its own engines have done without it for {r.idle_s or 0.0:.0f} s")
        for s in slots
        if (r := s.resident) is not None and r.lent and not r.is_kept and r.resident_s >= min_residence_s
    ]


def rest_s(failures: int) -> float:
    """How long after the last of so many failed starts in a row the next one waits; 0: at once, somewhere else."""
    return 0.0 if failures < TRIES else min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** min(failures - TRIES, 16))


def _left(slot: Slot) -> Choice:
    assert slot.resident is not None
    return Choice(slot.partition, slot.resident.deployment, why_it_leaves(slot.resident), slot.resident.others)


def _room(slot: Slot) -> tuple[bool, bool, int, bool, int, int]:
    """Smaller is taken sooner."""
    return (slot.failed, not slot.clear, slot.size, not slot.near, slot.memory_bytes, slot.partition)


def may_ever_leave(resident: Resident, priority: int) -> bool:
    """For one of that priority, once it has no request and has been there long enough; one that is not the pool's to
    empty never does."""
    return (resident.lent or resident.priority <= priority) and resident.in_flight is not None


def _may_leave(resident: Resident, priority: int, min_residence_s: float) -> bool:
    may = resident.lent or resident.priority <= priority
    return may and resident.is_idle and resident.resident_s >= min_residence_s


def _bed(slot: Slot) -> Choice:
    if slot.resident is None:
        return Choice(slot.partition, None, "its engine sleeps there")
    choice = _left(slot)
    return replace(choice, reason=f"its engine sleeps there; {choice.reason}")


def _is_open(slot: Slot, priority: int, min_residence_s: float) -> bool:
    """Whether nobody has it, or somebody who no longer counts as active and may leave."""
    who = slot.resident
    return who is None or (not who.is_kept and _may_leave(who, priority, min_residence_s))


def worth(leaving: Sequence[Slot]) -> Callable[[Slot], Worth]:
    """Smaller leaves sooner: lent, no longer active, of low priority, least likely to return, longest idle. Chances
    count only where every one of them has one: an unknown one is neither low nor high."""
    own = [slot.resident for slot in leaving if slot.resident is not None and not slot.resident.lent]
    told = all(resident.return_chance is not None for resident in own)

    def of(slot: Slot) -> Worth:
        resident = slot.resident
        assert resident is not None
        chance, idle_s = (resident.return_chance or 0.0) if told else 0.0, resident.idle_s or 0.0
        return (not resident.lent, resident.is_kept, resident.priority, chance, -idle_s, slot.partition)

    return of


def why_it_leaves(resident: Resident) -> str:
    """For people."""
    idle = f"idle for {resident.idle_s or 0.0:.0f} s"
    if resident.return_chance is None:
        return f"{idle}, the least to be missed of those that may leave"
    return f"{idle}, and asked for again soon with a chance of {resident.return_chance:.0%}"
