"""Node and partition status: one example per sentence, then what holds for all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.health import is_confirmed, is_crash_looping, is_silent, node_status, partition_status
from controlplane.domain.types import NodeStatus, PartitionStatus, PartitionView, Phase, Role
from tests.domain.views import NOW, make_node, make_partition


def assigned(phase: Phase | None = None, **keys: Any) -> PartitionView:
    """Assigned at generation 5, which the agent has heard of unless told otherwise."""
    values = {"deployment": "chat", "role": Role.DECODE, "generation": 5, "observed_generation": 5, **keys}
    return make_partition(phase=phase, **values)


def released(phase: Phase | None, **keys: Any) -> PartitionView:
    return make_partition(phase=phase, generation=6, observed_generation=5, **keys)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, NodeStatus.READY),
        ({"last_seen": NOW - 10}, NodeStatus.READY),
        ({"last_seen": NOW - 10.1}, NodeStatus.SILENT),
        ({"last_seen": NOW + 60}, NodeStatus.READY),  # a clock stepped back is no silence
        ({"last_seen": None}, NodeStatus.NEVER_SEEN),
        ({"schedulable": False}, NodeStatus.CORDONED),
        ({"draining": True, "partitions_in_use": 1}, NodeStatus.DRAINING),
        ({"draining": True, "schedulable": False}, NodeStatus.DRAINED),
        ({"revoked": True, "last_seen": None}, NodeStatus.REVOKED),
        ({"schedulable": False, "last_seen": NOW - 60}, NodeStatus.SILENT),
        ({"draining": True, "last_seen": NOW - 60}, NodeStatus.SILENT),
    ],
)
def test_node_status(keys: dict[str, Any], expected: NodeStatus) -> None:
    assert node_status(make_node(**keys), NOW) is expected


def test_how_long_silence_takes_can_be_said() -> None:
    assert node_status(make_node(last_seen=NOW - 20), NOW, silent_after_s=30) is NodeStatus.READY
    assert is_silent(NOW - 20, NOW, 15)


def test_without_deployment_and_process_it_is_unassigned() -> None:
    assert partition_status(make_partition(), NOW) is PartitionStatus.UNASSIGNED
    assert partition_status(released(Phase.EXITED), NOW) is PartitionStatus.UNASSIGNED


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase.STARTING, PartitionStatus.STOPPING),
        (Phase.READY, PartitionStatus.DRAINING),
        (Phase.DRAINING, PartitionStatus.DRAINING),
        (Phase.STOPPING, PartitionStatus.STOPPING),
        (Phase.ASLEEP, PartitionStatus.STOPPING),
    ],
)
def test_a_released_partition_tells_what_becomes_of_its_process(phase: Phase, expected: PartitionStatus) -> None:
    assert partition_status(released(phase), NOW) is expected


def test_an_assignment_that_no_process_fills_is_pending() -> None:
    assert partition_status(assigned(None, observed_generation=4), NOW) is PartitionStatus.PENDING
    assert partition_status(assigned(Phase.EXITED, restarts=1), NOW) is PartitionStatus.PENDING


def test_ready_for_an_older_assignment_is_pending() -> None:
    assert partition_status(assigned(Phase.READY, observed_generation=4), NOW) is PartitionStatus.PENDING
    assert partition_status(assigned(Phase.STARTING, observed_generation=4), NOW) is PartitionStatus.PENDING


def test_a_replaced_process_is_seen_to_drain_and_stop() -> None:
    assert partition_status(assigned(Phase.DRAINING, observed_generation=4), NOW) is PartitionStatus.DRAINING
    assert partition_status(assigned(Phase.STOPPING, observed_generation=4), NOW) is PartitionStatus.STOPPING


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.STOPPING, Phase.ASLEEP])
def test_a_phase_of_the_present_assignment_is_the_status(phase: Phase) -> None:
    assert partition_status(assigned(phase), NOW) == phase.value


@pytest.mark.parametrize("phase", [None, Phase.STARTING, Phase.EXITED])
def test_three_restarts_in_a_row_are_crash_looping(phase: Phase | None) -> None:
    assert partition_status(assigned(phase, restarts=3), NOW) is PartitionStatus.CRASH_LOOPING
    assert partition_status(assigned(phase, restarts=2), NOW) is not PartitionStatus.CRASH_LOOPING


def test_an_engine_that_came_up_is_not_crash_looping() -> None:
    assert partition_status(assigned(Phase.READY, restarts=3), NOW) is PartitionStatus.READY


def test_a_new_assignment_begins_with_a_clean_record() -> None:
    assert not is_crash_looping(assigned(Phase.EXITED, restarts=9, observed_generation=4))


def test_a_process_on_a_silent_node_is_lost() -> None:
    silent: dict[str, Any] = {"node_last_seen": NOW - 11}

    assert partition_status(assigned(Phase.READY, **silent), NOW) is PartitionStatus.LOST
    assert partition_status(released(Phase.DRAINING, **silent), NOW) is PartitionStatus.LOST
    assert partition_status(assigned(None, **silent), NOW) is PartitionStatus.PENDING
    assert partition_status(make_partition(**silent), NOW) is PartitionStatus.UNASSIGNED


def test_confirmed_is_ready_at_exactly_this_generation() -> None:
    assert is_confirmed(assigned(Phase.READY))
    assert not is_confirmed(assigned(Phase.READY, observed_generation=4))
    assert not is_confirmed(assigned(Phase.STARTING))
    assert not is_confirmed(released(Phase.READY))


def test_a_generation_from_the_future_confirms_nothing() -> None:
    assert not is_confirmed(assigned(Phase.READY, observed_generation=6))


PARTITIONS = st.builds(
    PartitionView,
    id=st.just(1),
    node_name=st.just("a"),
    name=st.just("p0"),
    deployment=st.none() | st.just("chat"),
    role=st.none() | st.sampled_from(Role),
    generation=st.integers(0, 3),
    observed_generation=st.integers(0, 3),
    phase=st.none() | st.sampled_from(Phase),
    restarts=st.integers(0, 5),
    node_last_seen=st.none() | st.floats(NOW - 30, NOW),
)


@given(PARTITIONS)
def test_every_partition_has_a_status(partition: PartitionView) -> None:
    assert partition_status(partition, NOW) in PartitionStatus


@given(PARTITIONS)
def test_ready_means_confirmed_on_a_node_that_is_heard(partition: PartitionView) -> None:
    heard = not is_silent(partition.node_last_seen, NOW)

    assert (partition_status(partition, NOW) is PartitionStatus.READY) == (is_confirmed(partition) and heard)


@given(PARTITIONS)
def test_lost_needs_silence_and_a_process(partition: PartitionView) -> None:
    lost = partition_status(partition, NOW) is PartitionStatus.LOST

    assert lost == (partition.has_process and is_silent(partition.node_last_seen, NOW))


@given(PARTITIONS)
def test_unassigned_means_nothing_desired_and_nothing_running(partition: PartitionView) -> None:
    if partition_status(partition, NOW) is PartitionStatus.UNASSIGNED:
        assert partition.deployment is None
        assert not partition.has_process
