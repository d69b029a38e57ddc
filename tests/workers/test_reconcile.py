"""One step of an agent: what it does about what is wanted and what is there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.contract import NodeSpec, Phase, ReplicaSpec, Role
from workers.reconcile import (
    GRACE_S,
    IDLE_GRACE_S,
    QUIET_S,
    QUIET_SETTLE_S,
    SETTLE_S,
    SHUT_MARGIN_S,
    STEADY_S,
    Drain,
    Forget,
    Relabel,
    Replica,
    Start,
    Steady,
    Stop,
    Wait,
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
    if phase == Phase.DRAINING and changes.get("idle_since") is not None:
        changes.setdefault("idle_seen", 10.0**9)  # it still is, whenever it is asked
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


def test_a_drain_is_hurried_where_another_deployment_is_to_have_its_devices():
    other = node(want(deployment="other", model="n"), generation=2)
    assert [a for a in reconcile(other, have(want()), 0.0) if not isinstance(a, Wait)] == [Drain(1, hurried=True)]
    assert reconcile(node(generation=2), have(want()), 0.0) == [Drain(1)]


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


def test_it_is_asked_once_more_when_the_time_for_gateways_is_over():
    """A request may have come to it since it was last looked at."""
    idle = have(want(), Phase.DRAINING, since=100.0, idle_since=50.0, idle_seen=100.0 + QUIET_SETTLE_S - 0.01)
    assert reconcile(node(generation=2), idle, 105.0) == []
    again = have(want(), Phase.DRAINING, since=100.0, idle_since=50.0, idle_seen=100.0 + QUIET_SETTLE_S)
    assert reconcile(node(generation=2), again, 105.0) == [Stop(1)]
    assert reconcile(node(generation=2), have(want(), Phase.DRAINING, since=100.0, idle_since=50.0), 99.0) == []


def test_whose_door_is_shut_goes_at_once_as_long_as_it_is():
    shut = {"idle_since": 50.0, "idle_seen": 100.1, "shut_until": 102.0}
    gone = node(generation=2)
    assert reconcile(gone, have(want(), Phase.DRAINING, since=100.0, **shut), 100.1) == [Stop(1)]
    assert reconcile(gone, have(want(), Phase.DRAINING, since=100.0, **shut), 102.0 - SHUT_MARGIN_S) == []
    before = shut | {"idle_seen": 99.9}
    assert reconcile(gone, have(want(), Phase.DRAINING, since=100.0, **before), 100.1) == []


def test_a_shut_door_does_not_shorten_the_lease_of_a_prefill_engine():
    lately = have(want(role=Role.PREFILL), Phase.DRAINING, since=100.0, idle_since=90.0, shut_until=130.0)
    assert reconcile(node(generation=2), lately, 90.0 + QUIET_SETTLE_S + 29.9) == []
    flipped = have(want(), Phase.DRAINING, since=10.0, idle_since=1.0, prefill_until=9.0, shut_until=12.0)
    assert reconcile(node(generation=2), flipped, 10.5) == []


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
