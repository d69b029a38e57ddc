"""One agent speaks for a node: late reports, restarts, takeovers, copies, and wrong clocks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.fleet import reports
from controlplane.fleet.errors import IdentityConflict
from controlplane.fleet.models import Node
from tests.factories import make_node, make_partition
from tests.fleet.reporting import report_of, status_of, tell

pytestmark = pytest.mark.django_db


def verbs() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))


def test_an_older_report_is_dropped_and_still_answered() -> None:
    partition = make_partition(role="decode", generation=1)
    Node.objects.update(generation=1)
    tell(partition.node, seq=10, replicas=(status_of(partition, "ready"),))

    reply = tell(partition.node, seq=9, generation=0, replicas=())

    partition.refresh_from_db()
    assert partition.phase == "ready"
    assert reply.spec is None or reply.spec.generation >= 1


def test_a_repeat_of_a_report_that_wrote_nothing_is_dropped_too() -> None:
    partition, now = make_partition(role="decode"), timezone.now()
    for seq in (1, 2, 3):
        tell(partition.node, seq=seq, now=now, replicas=(status_of(partition, "ready"),))

    tell(partition.node, seq=2, now=now, replicas=(status_of(partition, "starting"),))

    partition.refresh_from_db()
    assert partition.phase == "ready"


def test_another_process_of_the_same_home_goes_on_counting() -> None:
    node = make_node()
    tell(node, boot="boot-1", seq=900)

    tell(node, boot="boot-2", seq=2000, agent_version="0.2")

    node.refresh_from_db()
    assert (node.boot, node.last_seq, node.agent_version) == ("boot-2", 2000, "0.2")
    assert verbs() == ["agent-restarted"]


def test_a_late_report_of_the_process_before_is_late_at_a_web_process_that_saw_no_restart() -> None:
    """Taken for a new process, it would make the living agent the one that was followed, and end it."""
    node, now = make_node(), timezone.now()
    tell(node, boot="boot-1", seq=900, now=now)
    tell(node, boot="new", seq=2000, now=now)
    reports.forget()  # another web process takes the next ones

    tell(node, boot="boot-1", seq=901, now=now + timedelta(seconds=1), driver="old")
    tell(node, boot="new", seq=2001, now=now + timedelta(seconds=2), driver="new")

    node.refresh_from_db()
    assert (node.boot, node.last_seq, node.driver) == ("new", 2001, "new")
    assert verbs() == ["agent-restarted"]


def test_a_copied_home_is_found_at_a_web_process_that_saw_no_restart() -> None:
    """A process that was followed may be late for a moment. One that goes on speaking lives."""
    node, now = make_node(), timezone.now()
    tell(node, boot="boot-1", seq=100, now=now)
    tell(node, boot="copy", seq=2000, now=now)
    reports.forget()

    for second in range(20):
        moment = now + timedelta(seconds=second)
        tell(node, boot="copy", seq=2001 + second, now=moment)
        tell(node, boot="boot-1", seq=101 + second, now=moment)
    with pytest.raises(IdentityConflict):
        tell(node, boot="boot-1", seq=121, now=now + timedelta(seconds=21))

    tell(node, boot="copy", seq=2021, now=now + timedelta(seconds=21))
    assert verbs() == ["agent-restarted", "identity-conflict"]


def test_an_agent_whose_clock_was_set_back_is_taken_once_nothing_else_speaks() -> None:
    """Its numbers begin before those of the process that it follows."""
    node, now = make_node(), timezone.now()
    tell(node, boot="boot-1", seq=9000, now=now)

    for second in range(1, 13):
        tell(node, boot="after", seq=100 + second, now=now + timedelta(seconds=second))

    node.refresh_from_db()
    assert node.boot == "after"
    assert verbs() == ["agent-restarted", "heard-again"]


def test_a_second_agent_is_told_to_stop_while_the_first_is_heard() -> None:
    node, now = make_node(), timezone.now()
    tell(node, now=now)

    with pytest.raises(IdentityConflict) as error:
        tell(node, instance="another-home", now=now + timedelta(seconds=5), driver="intruder")

    assert (error.value.code, error.value.status) == ("identity-conflict", 409)
    node.refresh_from_db()
    assert (node.instance, node.driver) == (f"instance-{node.name}", "")


def test_the_conflict_is_in_the_trail_once_not_each_second() -> None:
    node, now = make_node(), timezone.now()
    tell(node, now=now)

    for second in range(1, 6):
        with pytest.raises(IdentityConflict):
            tell(node, instance="another-home", now=now + timedelta(seconds=second))
        if second == 3:
            reports.forget()  # another web process takes the next ones

    assert verbs() == ["identity-conflict"]


def test_after_silence_another_agent_takes_over_and_the_first_is_the_second() -> None:
    node, now = make_node(), timezone.now()
    tell(node, now=now)

    tell(node, instance="another-home", boot="other", now=now + timedelta(seconds=11))

    node.refresh_from_db()
    assert node.instance == "another-home"
    assert verbs() == ["takeover", "heard-again"]
    with pytest.raises(IdentityConflict):
        tell(node, instance=f"instance-{node.name}", boot="boot-1", now=now + timedelta(seconds=12))


def test_the_silence_is_counted_from_the_last_report_not_from_the_last_write() -> None:
    """last_seen lags three seconds at most; that never makes a heard node look silent."""
    node, now = make_node(), timezone.now()
    for second in range(12):
        tell(node, now=now + timedelta(seconds=second))

    with pytest.raises(IdentityConflict):
        tell(node, instance="another-home", now=now + timedelta(seconds=19))


def test_a_copied_home_is_found_by_a_process_that_speaks_again() -> None:
    """Both copies have one instance and one token; but a process that was followed by another never comes back."""
    node, now = make_node(), timezone.now()
    tell(node, boot="first", seq=100, now=now)
    tell(node, boot="copy", seq=2000, now=now)

    with pytest.raises(IdentityConflict):
        tell(node, boot="first", seq=101, now=now)

    tell(node, boot="copy", seq=2001, now=now)
    assert verbs().count("identity-conflict") == 1


def test_a_wrong_clock_is_measured_told_once_and_orders_nothing() -> None:
    node, now = make_node(), timezone.now()

    for second in range(5):
        moment = now + timedelta(seconds=second)
        tell(node, now=moment, at=moment.timestamp() - 3600, driver=f"report {second}")

    node.refresh_from_db()
    assert node.clock_skew_s == pytest.approx(-3600)
    assert node.driver == "report 4"
    assert node.last_seen == now + timedelta(seconds=4)
    assert verbs() == ["clock-skewed"]


def test_a_clock_that_goes_wrong_without_other_news_is_told_and_so_is_its_mending() -> None:
    node, now = make_node(), timezone.now()
    for second, skew in ((0, 0), (3, 60), (6, 0)):
        moment = now + timedelta(seconds=second)
        tell(node, now=moment, at=moment.timestamp() + skew)

    assert verbs() == ["clock-skewed", "clock-right"]


def test_a_small_skew_is_no_news() -> None:
    node, now = make_node(), timezone.now()

    tell(node, now=now, at=now.timestamp() + 4)

    assert verbs() == []


def test_a_report_that_lost_the_race_writes_nothing() -> None:
    """Two web processes hold reports of one node; the row decides."""
    node = make_node()
    seen_by_both = Node.objects.get(pk=node.pk)
    newer = report_of(node, seq=1000, driver="newer")
    older = report_of(node, seq=999, driver="older")

    reports.receive(newer, node=Node.objects.get(pk=node.pk), now=timezone.now())
    reports.forget()
    reports.receive(older, node=seen_by_both, now=timezone.now())

    node.refresh_from_db()
    assert (node.driver, node.last_seq) == ("newer", 1000)
