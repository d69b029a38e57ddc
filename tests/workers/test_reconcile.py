from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.contract import NodeSpec, Phase, ReplicaSpec, Role
from workers.reconcile import (
    GRACE_S,
    IDLE_GRACE_S,
    QUIET_S,
    QUIET_SETTLE_S,
    SETTLE_S,
    STEADY_S,
    Doze,
    Drain,
    Forget,
    PutAway,
    Relabel,
    Replica,
    Start,
    Steady,
    Stop,
    Wait,
    Wake,
    backoff_s,
    reconcile,
    settle_s,
)


def want(partition: int = 1, **changes: object) -> ReplicaSpec:
    values = {
        "partition": partition, "name": f"p{partition}", "deployment": "demo", "role": Role.DECODE,
        "gpus": (f"G{partition}",), "model": "m", "served_names": ("demo",), "drain_s": 120.0, "kv_lease_s": 30,
    }  # fmt: skip
    return ReplicaSpec(**(values | changes))  # type: ignore[arg-type]


def node(*replicas: ReplicaSpec, generation: int = 1) -> NodeSpec:
    stamped = tuple(msgspec.structs.replace(r, generation=generation) for r in replicas)
    return NodeSpec(node=7, generation=generation, replicas=stamped)


def have(spec: ReplicaSpec, phase: Phase = Phase.READY, since: float = 0.0, **changes: object) -> dict[int, Replica]:
    spec = msgspec.structs.replace(spec, generation=1)
    return {spec.partition: Replica(spec, phase, since, **changes)}  # type: ignore[arg-type]


def test_what_is_missing_is_started():
    [action] = reconcile(node(want()), {}, 0.0)
    assert action == Start(msgspec.structs.replace(want(), generation=1))


def test_what_is_right_is_left_alone():
    assert reconcile(node(want()), have(want()), 9.0) == []


def test_a_new_drain_deadline_of_the_same_generation_is_taken():
    """A replica keeps its generation where nothing is asked of it that would have to be confirmed."""
    patient = NodeSpec(node=1, generation=2, replicas=(want(drain_s=600.0, name="renamed", generation=1),))
    assert reconcile(patient, have(want()), 9.0) == [Relabel(patient.replicas[0])]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.ASLEEP])
def test_a_new_role_with_equal_content_is_only_a_label(phase):
    flipped = node(want(role=Role.PREFILL), generation=2)
    [action] = reconcile(flipped, have(want(role=Role.DECODE), phase), 9.0)
    assert action == Relabel(flipped.replicas[0])


def test_new_content_drains_settles_stops_then_starts():
    changed = node(want(args=("--x",)), generation=2)
    assert [a for a in reconcile(changed, have(want()), 0.0) if not isinstance(a, Wait)] == [Drain(1)]
    draining = have(want(), Phase.DRAINING, idle_since=0.1)
    assert reconcile(changed, draining, SETTLE_S - 0.1) == []  # gateways may not know yet
    assert reconcile(changed, draining, SETTLE_S) == [Stop(1)]
    assert reconcile(changed, have(want(), Phase.STOPPING), 3.0) == []
    [start] = reconcile(changed, have(want(), Phase.EXITED, asked=True), 3.0)
    assert start == Start(changed.replicas[0], restarts=0)


def test_a_prefill_engine_is_kept_until_nobody_can_pull_its_blocks_any_more():
    gone, prefill = node(generation=2), want(role=Role.PREFILL)
    idle = have(prefill, Phase.DRAINING, idle_since=5.0)
    settled = 5.0 + SETTLE_S + 30.0
    assert reconcile(gone, idle, settled - 0.1) == []
    assert reconcile(gone, idle, settled) == [Stop(1)]


def test_a_prefill_engine_that_has_long_had_no_request_waits_for_gateways_alone():
    idle = have(want(role=Role.PREFILL), Phase.DRAINING, since=100.0, idle_since=100.0 - 30.0)
    assert reconcile(node(generation=2), idle, 100.0 + QUIET_SETTLE_S - 0.1) == []
    assert reconcile(node(generation=2), idle, 100.0 + QUIET_SETTLE_S) == [Stop(1)]
    lately = have(want(role=Role.PREFILL), Phase.DRAINING, since=100.0, idle_since=90.0)
    assert reconcile(node(generation=2), lately, 90.0 + QUIET_SETTLE_S + 29.9) == []
    assert reconcile(node(generation=2), lately, 90.0 + QUIET_SETTLE_S + 30.0) == [Stop(1)]


@pytest.mark.parametrize(("quiet_s", "settle_s"), [(QUIET_S, QUIET_SETTLE_S), (QUIET_S - 0.1, SETTLE_S)])
def test_whom_nobody_has_asked_for_a_while_is_not_left_waiting_for_the_next_request(quiet_s, settle_s):
    idle = have(want(), Phase.DRAINING, since=100.0, idle_since=100.0 - quiet_s)
    assert reconcile(node(generation=2), idle, 100.0 + settle_s - 0.05) == []
    assert reconcile(node(generation=2), idle, 100.0 + settle_s) == [Stop(1)]


def test_an_engine_that_prefilled_until_lately_is_kept_as_long():
    idle = have(want(), Phase.DRAINING, since=10.0, idle_since=10.0, prefill_until=9.0)
    settled = 9.0 + SETTLE_S + 30.0
    assert reconcile(node(generation=2), idle, settled - 0.1) == []
    assert reconcile(node(generation=2), idle, settled) == [Stop(1)]


def test_a_busy_engine_is_drained_until_its_deadline_and_no_longer():
    busy = have(want(drain_s=60.0), Phase.DRAINING)
    assert reconcile(node(generation=2), busy, 59.9) == []
    assert reconcile(node(generation=2), busy, 60.0) == [Stop(1)]


@pytest.mark.parametrize("deadline", [5.0, 600.0])
def test_the_nodes_drain_deadline_stands_for_the_engines_own(deadline):
    """Shorter or longer than what its deployment would give it."""
    leaving = NodeSpec(node=7, generation=2, drain_s=deadline)
    busy = have(want(drain_s=60.0), Phase.DRAINING)
    assert reconcile(leaving, busy, deadline - 0.1) == []
    assert reconcile(leaving, busy, deadline) == [Stop(1)]


def test_a_deadline_that_changes_while_it_drains_is_the_one_that_counts():
    busy = have(want(drain_s=60.0), Phase.DRAINING)
    assert reconcile(NodeSpec(node=7, generation=2, drain_s=600.0), busy, 100.0) == []
    assert reconcile(NodeSpec(node=7, generation=3, drain_s=90.0), busy, 100.0) == [Stop(1)]


def test_an_idle_engine_does_not_wait_for_the_nodes_deadline():
    idle = have(want(), Phase.DRAINING, idle_since=0.1)
    assert reconcile(NodeSpec(node=7, generation=2, drain_s=600.0), idle, 2.0) == [Stop(1)]


def test_the_nodes_deadline_says_nothing_of_an_engine_that_another_one_follows():
    follows = msgspec.structs.replace(node(want(args=("--x",)), generation=2), drain_s=1.0)
    busy = have(want(drain_s=60.0), Phase.DRAINING)
    assert [a for a in reconcile(follows, busy, 59.9) if not isinstance(a, Wait)] == []


def test_a_spec_with_a_deadline_is_read_by_an_agent_that_knows_none_and_the_other_way_round():
    class OldSpec(msgspec.Struct, frozen=True, kw_only=True):
        node: int
        generation: int
        replicas: tuple[ReplicaSpec, ...] = ()

    sent = msgspec.json.encode(NodeSpec(node=7, generation=2, drain_s=9.0))
    assert msgspec.json.decode(sent, type=OldSpec) == OldSpec(node=7, generation=2)
    old = msgspec.json.encode(OldSpec(node=7, generation=2))
    assert msgspec.json.decode(old, type=NodeSpec) == NodeSpec(node=7, generation=2)


@given(
    drain_s=st.floats(0, 1000), own=st.floats(0, 1000), age=st.floats(0, 2000), role=st.sampled_from(Role),
    idle=st.none() | st.floats(0, 2000),
)  # fmt: skip
def test_an_engine_of_a_draining_node_goes_at_its_deadline_and_never_settled_too_early(drain_s, own, age, role, idle):
    replica = have(want(role=role, drain_s=own), Phase.DRAINING, idle_since=idle)
    [action] = reconcile(NodeSpec(node=7, generation=2, drain_s=drain_s), replica, age) or [None]
    if age >= drain_s:
        assert action == Stop(1)
    elif action is not None:
        assert idle is not None and age >= settle_s(replica[1]), (
            "a busy one, or one that gateways may still choose, was stopped"
        )


def test_the_deadline_bounds_the_wait_for_the_lease_too():
    idle = have(want(role=Role.PREFILL, drain_s=3.0), Phase.DRAINING, idle_since=0.0)
    assert reconcile(node(generation=2), idle, 3.0) == [Stop(1)]


def test_a_drain_ends_when_the_same_engine_is_wanted_again():
    again = node(want(role=Role.PREFILL), generation=3)
    assert reconcile(again, have(want(), Phase.DRAINING), 1.0) == [Relabel(again.replicas[0])]


def test_a_drain_ends_when_exactly_what_runs_is_wanted_after_all():
    assert reconcile(node(want()), have(want(), Phase.DRAINING), 1.0) == [Relabel(node(want()).replicas[0])]


def test_an_engine_that_was_stopped_on_purpose_starts_again_at_once():
    [start] = reconcile(node(want()), have(want(), Phase.EXITED, restarts=4, asked=True), 0.0)
    assert isinstance(start, Start) and start.restarts == 0


def test_an_engine_that_is_starting_has_nothing_to_drain():
    assert reconcile(node(generation=2), have(want(), Phase.STARTING), 1.0) == [Stop(1)]


def test_one_that_ignores_sigterm_is_killed_after_the_grace():
    stopping = have(want(), Phase.STOPPING)
    assert reconcile(node(), stopping, GRACE_S - 0.1) == []
    assert reconcile(node(), stopping, GRACE_S) == [Stop(1, force=True)]


def test_an_engine_that_was_idle_when_it_was_stopped_is_killed_sooner() -> None:
    stopping = have(want(), Phase.STOPPING, idle_since=-5.0)
    assert reconcile(node(), stopping, IDLE_GRACE_S - 0.1) == []
    assert reconcile(node(), stopping, IDLE_GRACE_S) == [Stop(1, force=True)]


def test_what_is_no_longer_wanted_is_forgotten_once_it_has_ended():
    assert reconcile(node(generation=2), have(want(), Phase.EXITED), 0.0) == [Forget(1)]


def test_a_crashed_engine_rests_longer_each_time_up_to_a_cap():
    for restarts in range(12):
        crashed = have(want(), Phase.EXITED, restarts=restarts)
        rest = backoff_s(restarts)
        [waiting] = reconcile(node(want()), crashed, rest - 0.01)
        assert isinstance(waiting, Wait) and "next start" in waiting.reason
        [start] = reconcile(node(want()), crashed, rest)
        assert isinstance(start, Start) and start.restarts == restarts + 1
    assert [backoff_s(n) for n in (0, 1, 2, 3)] == [1, 2, 4, 8] and backoff_s(50) == 60


def test_a_crashed_engine_with_new_content_starts_at_once():
    crashed = have(want(), Phase.EXITED, restarts=7)
    [start] = reconcile(node(want(args=("--fixed",)), generation=2), crashed, 0.0)
    assert isinstance(start, Start) and start.restarts == 0


def test_restarts_are_forgotten_after_a_while_of_being_ready():
    assert reconcile(node(want()), have(want(), restarts=2), STEADY_S - 1) == []
    assert reconcile(node(want()), have(want(), restarts=2), STEADY_S) == [Steady(1)]


def test_a_crashed_engine_reports_the_newest_generation_while_it_rests():
    newer = node(want(), generation=5)
    assert Relabel(newer.replicas[0]) in reconcile(newer, have(want(), Phase.EXITED, restarts=3), 1.0)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.STOPPING, Phase.ASLEEP])
def test_nothing_starts_on_a_device_that_a_live_process_holds(phase):
    wide = want(2, gpus=("G1", "G2"))
    actions = reconcile(node(wide, generation=2), have(want(1), phase), 0.5)
    assert not [a for a in actions if isinstance(a, Start)]
    assert [a.reason for a in actions if isinstance(a, Wait)] == [f"device G1 is still held by partition p1 ({phase})"]


def test_nothing_starts_on_a_device_held_by_a_process_nobody_wrote_down():
    [action] = reconcile(node(want()), {}, 0.0, held={"G1"})
    assert isinstance(action, Wait) and "left over" in action.reason


def test_nothing_starts_on_a_device_that_is_lost():
    [action] = reconcile(node(want()), {}, 0.0, usable={"G2"})
    assert isinstance(action, Wait) and "G1 is lost or not on this node" in action.reason


def test_of_two_replicas_for_one_device_only_the_first_starts():
    actions = reconcile(node(want(1, gpus=("G",)), want(2, gpus=("G",))), {}, 0.0)
    assert [type(a) for a in actions] == [Start, Wait]


def test_a_replica_without_devices_is_not_started():
    [action] = reconcile(node(want(gpus=())), {}, 0.0)
    assert isinstance(action, Wait)


# --- any history -----------------------------------------------------------------------------------------

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
            case Drain(p):
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
            return replace(replica, idle_since=self.now if replica.idle_since is None else replica.idle_since)
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


# --- engines that sleep ----------------------------------------------------------------------------------

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
