"""Engines that sleep in a slot: dozing, waking, and any history of it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.test_reconcile import have, node, want
from tests.workers.test_reconcile_histories import DEVICES, World
from workers.contract import NodeSpec, Phase
from workers.reconcile import (
    Doze,
    Drain,
    PutAway,
    Replica,
    Start,
    Stop,
    Wait,
    Wake,
    reconcile,
)

SLEEPY = {"can_sleep": True}


def test_an_engine_that_may_sleep_dozes_once_it_has_drained_instead_of_stopping():
    a, b = want(model="a"), want(model="b")
    spec = msgspec.structs.replace(node(b, generation=2), sleepers=(a,))
    assert reconcile(spec, have(a, **SLEEPY), 0.0)[0] == Drain(1)
    idle = have(a, Phase.DRAINING, idle_since=0.1, **SLEEPY)
    assert reconcile(spec, idle, 2.0)[0] == Doze(1)
    assert reconcile(spec, have(a, Phase.DRAINING, idle_since=0.1), 2.0)[0] == Stop(1)  # started otherwise
    assert reconcile(node(b, generation=2), idle, 2.0)[0] == Stop(1)  # not in the spec
    assert reconcile(spec, have(a, Phase.DOZING, **SLEEPY), 100.0) == []
    assert reconcile(spec, have(a, Phase.DOZING, **SLEEPY), 120.0)[0] == Stop(1)  # it hangs


def test_who_sleeps_is_woken_instead_of_started_and_only_once_the_slot_is_free():
    a, b = want(model="a"), want(model="b")
    spec = msgspec.structs.replace(node(a, generation=3), sleepers=(b,))
    beds = {"x": Replica(a, Phase.ASLEEP, 5.0, can_sleep=True)}
    assert reconcile(spec, {}, 9.0, asleep=beds) == [Wake(spec.replicas[0], "x")]
    assert reconcile(spec, have(b, Phase.DOZING, **SLEEPY), 9.0, asleep=beds) == []
    short = reconcile(spec, {}, 9.0, asleep=beds, short={"x"})
    assert short[0] == PutAway("x") and isinstance(short[1], Wait)  # its GPU is not free before it is gone


def test_one_that_does_not_wake_is_stopped_to_be_started_plainly():
    a = want(model="a")
    spec = node(a, generation=1)
    assert reconcile(spec, have(spec.replicas[0], Phase.WAKING, **SLEEPY), 299.0) == []
    assert reconcile(spec, have(spec.replicas[0], Phase.WAKING, **SLEEPY), 300.0) == [Stop(1)]
    assert reconcile(spec, have(spec.replicas[0], Phase.STARTING, woken=True), 59.0) == []
    assert reconcile(spec, have(spec.replicas[0], Phase.STARTING, woken=True), 60.0) == [Stop(1)]
    [start] = reconcile(spec, have(a, Phase.EXITED, asked=True), 300.0)
    assert isinstance(start, Start) and start.restarts == 0


class Slots(World):
    """Two slots of one GPU each in which engines of three models sleep, wake, leak, die and are adopted."""

    def __init__(self) -> None:
        super().__init__()
        self.beds: dict[str, Replica] = {}
        self.counter = 0
        self.leaks = self.wakes_badly = self.is_short = False

    def tick(self) -> None:
        self.now += 1.0
        short = set(list(self.beds)[:1]) if self.is_short else set()
        actions = reconcile(
            self.spec, self.replicas, self.now, usable=set(DEVICES) - self.lost, asleep=self.beds, short=short
        )
        for action in actions:
            self.act(action)
            self.check()
        for partition, replica in list(self.replicas.items()):
            self.replicas[partition] = self.progress(replica)
            if replica.phase == Phase.DOZING and self.now - replica.since >= 2 and not self.leaks:
                self.counter += 1
                asleep = Replica(replica.spec, Phase.ASLEEP, self.now, can_sleep=True)
                self.beds[f"m{self.counter}"] = asleep
                del self.replicas[partition]
        for marker, bed in list(self.beds.items()):
            if bed.phase == Phase.STOPPING and self.now - bed.since >= 1:
                del self.beds[marker]
        self.check()

    def act(self, action: object) -> None:
        match action:
            case Start(spec):
                there = [bed for bed in self.beds.values() if set(bed.spec.gpus) & set(spec.gpus)]
                assert all(bed.phase == Phase.ASLEEP for bed in there), "started beside one that is being stopped"
                assert spec.content() not in {bed.spec.content() for bed in there}, "started beside itself asleep"
                super().act(action)
                self.replicas[spec.partition] = replace(self.replicas[spec.partition], can_sleep=True)
            case Doze(p):
                assert self.replicas[p].phase == Phase.DRAINING and self.replicas[p].can_sleep
                self.replicas[p] = replace(self.replicas[p], phase=Phase.DOZING, since=self.now)
            case Wake(spec, marker):
                bed = self.beds.pop(marker)
                assert bed.phase == Phase.ASLEEP and bed.spec.content() == spec.content()
                before = self.replicas.get(spec.partition)
                assert before is None or before.phase == Phase.EXITED, "woken beside another"
                woken = Replica(spec, Phase.WAKING, self.now, can_sleep=True, woken=True)
                self.replicas[spec.partition] = woken
            case PutAway(marker, force):
                assert force == (self.beds[marker].phase == Phase.STOPPING)
                if not force:
                    self.beds[marker] = replace(self.beds[marker], phase=Phase.STOPPING, since=self.now)
            case _:
                super().act(action)

    def progress(self, replica: Replica) -> Replica:
        if replica.phase == Phase.WAKING and self.now - replica.since >= 1 and not self.wakes_badly:
            return replace(replica, phase=Phase.STARTING, since=self.now)
        return super().progress(replica)


def slots_spec(generation: int, awake: list[str | None], asleep: list[set[str]]) -> NodeSpec:
    replicas = [want(p + 1, model=m, gpus=(DEVICES[p],)) for p, m in enumerate(awake) if m]
    beds = [
        want(p + 1, model=m, gpus=(DEVICES[p],))
        for p, models in enumerate(asleep)
        for m in sorted(models - {awake[p] or ""})
    ]
    return msgspec.structs.replace(node(*replicas, generation=generation), sleepers=tuple(beds))


def befall(world: Slots, event: str, victim: int) -> None:
    beds = list(world.beds)
    if event == "dies" and beds:
        del world.beds[beds[victim % len(beds)]]
    elif event == "crash" and (found := world.replicas.get(victim)) and found.phase != Phase.EXITED:
        world.replicas[victim] = replace(found, phase=Phase.EXITED, since=world.now)
    elif event in ("leaks", "wakes_badly", "is_short"):
        setattr(world, event, not getattr(world, event))
    elif event == "jump":
        world.now += 45.0
    world.tick()


names = st.sampled_from(["a", "b", "c"])
wishes = st.lists(
    st.tuples(st.lists(st.none() | names, min_size=2, max_size=2), st.lists(st.sets(names), min_size=2, max_size=2)),
    min_size=1,
    max_size=6,
)
FATES = ["tick", "tick", "tick", "tick", "dies", "crash", "leaks", "wakes_badly", "is_short", "jump"]


@settings(max_examples=300, deadline=None)
@given(wishes, st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 2)), max_size=60))
def test_any_history_has_one_awake_in_a_slot_at_most_and_nobody_outside_the_spec(wanted, fates):
    world, queue = Slots(), list(fates)
    specs = [slots_spec(i + 1, awake, asleep) for i, (awake, asleep) in enumerate(wanted)]
    for spec in specs:
        world.deliver(spec)
        for _ in range(10):
            befall(world, *(queue.pop() if queue else ("tick", 1)))
    world.leaks = world.wakes_badly = world.is_short = False
    for _ in range(400):
        world.tick()
    last = specs[-1]
    assert {p: r.spec for p, r in world.replicas.items()} == {r.partition: r for r in last.replicas}
    assert all(replica.phase == Phase.READY for replica in world.replicas.values())
    may = {one.content() for one in last.sleepers}
    beds = [bed.spec.content() for bed in world.beds.values()]
    assert set(beds) <= may and len(beds) == len(set(beds))
