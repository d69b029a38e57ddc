"""Whatever happens, an agent comes to what is wanted, and never has two engines on one device."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.test_reconcile import node, want
from workers.contract import NodeSpec, Phase, ReplicaSpec, Role
from workers.reconcile import (
    Drain,
    Forget,
    Relabel,
    Replica,
    Start,
    Steady,
    Stop,
    reconcile,
)

DEVICES = ("A", "B", "C", "D")
layouts = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(Role),
        st.sets(st.sampled_from(DEVICES), min_size=1, max_size=3),
        st.sampled_from(["x", "y"]),
    ),
    max_size=4,
    unique_by=lambda t: t[0],
)
EVENTS = ["tick", "tick", "tick", "crash", "fail", "restart", "lose", "jump"]


class World:
    """A node whose engines start, drain, crash, hang and die, and whose agent restarts; safety is checked after
    every single action."""

    def __init__(self) -> None:
        self.now = 0.0
        self.replicas: dict[int, Replica] = {}
        self.spec = NodeSpec(node=7, generation=0)
        self.lost: set[str] = set()
        self.strays: set[str] = set()
        self.fail_starts = False

    def deliver(self, spec: NodeSpec) -> None:
        if spec.generation > self.spec.generation:
            self.spec = spec

    def tick(self) -> None:
        self.now += 1.0
        usable = set(DEVICES) - self.lost
        for action in reconcile(self.spec, self.replicas, self.now, usable=usable, held=self.strays):
            self.act(action)
            self.check()
        self.strays = set()  # the sweep has killed them
        for partition, replica in list(self.replicas.items()):
            self.replicas[partition] = self.progress(replica)

    def act(self, action: object) -> None:
        match action:
            case Start(spec, restarts):
                assert not self.lost & set(spec.gpus) and not self.strays & set(spec.gpus)
                phase = Phase.EXITED if self.fail_starts else Phase.STARTING
                self.replicas[spec.partition] = Replica(spec, phase, self.now, restarts=restarts)
            case Drain(p, _):
                assert self.replicas[p].phase == Phase.READY
                self.replicas[p] = replace(self.replicas[p], phase=Phase.DRAINING, since=self.now, idle_since=None)
            case Stop(p, force):
                assert force == (self.replicas[p].phase == Phase.STOPPING)
                if not force:
                    self.replicas[p] = replace(self.replicas[p], phase=Phase.STOPPING, since=self.now, asked=True)
            case Relabel(spec):
                old = self.replicas[spec.partition]
                assert old.spec.content() == spec.content(), "a relabel must not stand for a replacement"
                phase = Phase.READY if old.phase == Phase.DRAINING else old.phase
                self.replicas[spec.partition] = replace(old, spec=spec, phase=phase)
            case Steady(p):
                self.replicas[p] = replace(self.replicas[p], restarts=0)
            case Forget(p):
                assert self.replicas[p].phase == Phase.EXITED, "a live process must not be forgotten"
                del self.replicas[p]

    def progress(self, replica: Replica) -> Replica:
        age = self.now - replica.since
        if replica.phase == Phase.STARTING and age >= 2:
            return replace(replica, phase=Phase.READY, since=self.now)
        if replica.phase == Phase.DRAINING:
            since = self.now if replica.idle_since is None else replica.idle_since
            return replace(replica, idle_since=since, idle_seen=self.now)
        if replica.phase == Phase.STOPPING and age >= 2:
            return replace(replica, phase=Phase.EXITED, since=self.now)
        return replica

    def check(self) -> None:
        held = [gpu for r in self.replicas.values() if r.phase != Phase.EXITED for gpu in r.spec.gpus]
        assert len(held) == len(set(held)), "two engines on one device"


def disjoint(layout: list[tuple[int, Role, set[str], str]]) -> list[ReplicaSpec]:
    taken: set[str] = set()
    replicas = []
    for partition, role, gpus, model in layout:
        if not gpus & taken:
            taken |= gpus
            replicas.append(want(partition, role=role, gpus=tuple(sorted(gpus)), model=model))
    return replicas


def happen(world: World, event: str, victim: int) -> None:
    replica = world.replicas.get(victim)
    if event == "crash" and replica and replica.phase != Phase.EXITED:
        world.replicas[victim] = replace(replica, phase=Phase.EXITED, since=world.now)
    elif event == "restart" and replica and replica.phase == Phase.STARTING:
        # The agent was killed before it wrote the pid down, and its record is gone with it.
        world.strays |= set(replica.spec.gpus)
        del world.replicas[victim]
    elif event == "fail":
        world.fail_starts = not world.fail_starts
    elif event == "lose":
        world.lost ^= {DEVICES[victim - 1]}
    elif event == "jump":
        world.now += 45.0
    world.tick()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(layouts, min_size=1, max_size=5),
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(1, 4)), max_size=40),
)
def test_any_history_converges_and_never_puts_two_engines_on_one_device(all_layouts, rnd, events):
    specs = [
        msgspec.structs.replace(node(*disjoint(layout), generation=i + 1), drain_s=rnd.choice([None, 0.0, 5.0, 300.0]))
        for i, layout in enumerate(all_layouts)
    ]
    mail = [spec for spec in specs[:-1] for _ in range(rnd.randint(0, 2))] + [specs[-1]]  # lost and repeated
    rnd.shuffle(mail)  # and out of order
    world, queue = World(), list(events)
    for letter in mail:
        world.deliver(letter)
        for _ in range(rnd.randint(0, 8)):
            happen(world, *(queue.pop() if queue else ("tick", 1)))
    world.lost, world.fail_starts = set(), False
    for _ in range(400):
        world.tick()
    assert {p: r.spec for p, r in world.replicas.items()} == {r.partition: r for r in specs[-1].replicas}
    assert all(replica.phase == Phase.READY for replica in world.replicas.values())


@settings(max_examples=200, deadline=None)
@given(layouts, st.integers(0, 3))
def test_even_a_spec_that_wants_a_device_twice_never_gets_two_engines_on_it(layout, crashes):
    greedy = node(*(want(p, role=role, gpus=tuple(sorted(gpus)), model=m) for p, role, gpus, m in layout))
    world = World()
    world.deliver(greedy)
    for step in range(30):
        happen(world, "crash" if step < crashes else "tick", step % 4 + 1)
