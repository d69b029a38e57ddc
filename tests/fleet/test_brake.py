"""Many silent nodes put the brake on, for all processes; people may release it for a time."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.rollout import Move
from controlplane.fleet import brake, services, versions
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.models import BrakeRow, Node
from controlplane.fleet.tasks import watch
from tests.factories import make_deployment, make_node, make_partition, make_ready
from workers.contract import Role

pytestmark = pytest.mark.django_db


def fleet(heard: int, silent: int, now: datetime | None = None) -> list[Node]:
    now = now or timezone.now()
    quiet = {"last_seen": now - timedelta(seconds=30)}
    return [make_node(f"n{number}", **({} if number < heard else quiet)) for number in range(heard + silent)]


def verbs() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))


def test_it_is_off_while_few_are_silent() -> None:
    fleet(heard=5, silent=1)

    found = brake.state()

    assert (found.on, found.heard, found.counted, found.text) == (False, 5, 6, "")
    assert verbs() == []


def test_it_is_on_once_a_third_fell_silent_and_says_which() -> None:
    fleet(heard=4, silent=2)

    found = brake.state()

    assert (found.on, found.cause, found.heard, found.counted) == (True, "mass-loss", 4, 6)
    assert found.text == "2 of 6 nodes fell silent: n4, n5."
    assert found.to_dict()["since"] == found.since.timestamp()


def test_many_names_are_counted_not_told() -> None:
    fleet(heard=1, silent=8)

    assert brake.state().text == "8 of 9 nodes fell silent: n1, n2, n3, n4, n5 and 3 more."


def test_each_transition_is_recorded_once_however_often_one_looks() -> None:
    nodes = fleet(heard=4, silent=2)
    for _ in range(3):
        watch()
    since = BrakeRow.objects.get().since
    Node.objects.filter(pk__in=[node.pk for node in nodes]).update(last_seen=timezone.now())
    for _ in range(3):
        watch()

    assert verbs() == ["brake-on", "brake-off"]
    on = AuditEvent.objects.get(verb="brake-on")
    assert (on.actor_name, on.subject_name, on.after["silent"]) == ("forebay", "the brake", ["n4", "n5"])
    assert since is not None
    assert BrakeRow.objects.get().since is None


def test_between_two_looks_it_is_as_new_as_the_reports() -> None:
    nodes = fleet(heard=6, silent=0)
    watch()
    gone = [node.pk for node in nodes[:3]]
    Node.objects.filter(pk__in=gone).update(last_seen=timezone.now() - timedelta(seconds=15))

    assert brake.state().on
    assert not BrakeRow.objects.get().on, "nobody has looked: it is judged, not written"
    came_on = Node.objects.filter(pk__in=gone).first().last_seen + timedelta(seconds=10)
    assert brake.state().since == brake.state(timezone.now() + timedelta(seconds=2)).since == came_on


def test_where_nobody_looks_the_one_who_is_about_to_act_does() -> None:
    fleet(heard=4, silent=2)
    watch()
    BrakeRow.objects.update(looked_at=timezone.now() - timedelta(minutes=5))

    brake.state()
    assert BrakeRow.objects.get().looked_at < timezone.now() - timedelta(seconds=5), "reading writes nothing"
    assert brake.before_acting().on
    assert BrakeRow.objects.get().looked_at > timezone.now() - timedelta(seconds=5)


def test_draining_and_revoked_nodes_may_be_switched_off() -> None:
    fleet(heard=4, silent=0)
    quiet = timezone.now() - timedelta(minutes=1)
    for number in range(3):
        make_node(f"draining-{number}", draining=True, last_seen=quiet)
        make_node(f"revoked-{number}", revoked=True, last_seen=quiet)
    make_node("never", last_seen=None)

    assert (brake.state().on, brake.state().counted) == (False, 4)


def test_after_the_control_plane_was_down_it_waits_for_the_others() -> None:
    """Web and worker were stopped for two hours; the first report that comes is of one node only."""
    nodes = fleet(heard=6, silent=0)
    watch()
    later = timezone.now() + timedelta(hours=2)
    Node.objects.filter(pk=nodes[0].pk).update(last_seen=later)

    found = brake.state(later)

    assert (found.on, found.heard, found.counted) == (True, 1, 6)
    Node.objects.update(last_seen=later + timedelta(seconds=2))
    assert not brake.state(later + timedelta(seconds=2)).on


def test_while_nobody_is_heard_it_says_so() -> None:
    fleet(heard=3, silent=0)
    watch()

    found = brake.state(timezone.now() + timedelta(minutes=20))

    assert (found.on, found.cause) == (True, "no-reports")
    assert found.text.startswith("None of the 3 nodes is heard")


def test_a_release_holds_for_its_time_and_is_recorded(actor: Actor) -> None:
    fleet(heard=4, silent=2)

    found = services.release_brake(actor=actor, reason="the rack is sold", for_s=600)

    assert (found.on, found.tripped, found.released_by) == (False, True, "olga")
    event = AuditEvent.objects.get(verb="release-brake")
    assert event.reason == "the rack is sold"
    later = timezone.now() + timedelta(seconds=601)
    Node.objects.filter(name__lt="n4").update(last_seen=later)
    assert brake.state(later).on


def test_a_release_is_for_the_loss_that_was_seen_and_no_other(actor: Actor) -> None:
    nodes = fleet(heard=4, silent=2)
    services.release_brake(actor=actor, reason="known", for_s=3600)
    Node.objects.update(last_seen=timezone.now())
    watch()
    Node.objects.filter(pk__in=[node.pk for node in nodes[:3]]).update(last_seen=timezone.now() - timedelta(seconds=20))
    watch()

    assert brake.state().on


def test_a_release_is_ended_early_and_that_once(actor: Actor) -> None:
    fleet(heard=4, silent=2)
    services.release_brake(actor=actor, reason="known", for_s=3600)

    found = services.restore_brake(actor=actor)
    services.restore_brake(actor=actor)

    assert found.on
    assert AuditEvent.objects.filter(verb="restore-brake").count() == 1


@pytest.mark.parametrize(
    ("reason", "for_s"), [("", 60), ("  ", 60), ("x", 0), ("x", -1), ("x", 1e9), ("x", float("nan"))]
)
def test_a_release_without_a_reason_or_end_is_refused(reason: str, for_s: float, actor: Actor) -> None:
    fleet(heard=4, silent=2)

    with pytest.raises(Invalid):
        services.release_brake(actor=actor, reason=reason, for_s=for_s)
    assert brake.state().on


def test_there_is_nothing_to_release_while_it_is_off(actor: Actor) -> None:
    fleet(heard=4, silent=0)

    with pytest.raises(Refused, match="not on"):
        services.release_brake(actor=actor, reason="x", for_s=60)
    assert not AuditEvent.objects.exists()


def test_a_running_change_waits_says_why_and_goes_on_when_the_nodes_are_back(actor: Actor) -> None:
    node, deployment = make_node("busy"), make_deployment("chat")
    parts = [make_ready(make_partition(node, deployment=deployment, role=role)) for role in ("decode", "decode")]
    fleet(heard=0, silent=2)

    moves = [Move(parts[0].pk, deployment.pk, Role.PREFILL)]
    change = services.apply_change(moves, version=versions.current(), actor=actor)

    assert change.state == "running"
    assert change.message.startswith("The brake is on. 2 of 3 nodes fell silent: n0, n1.")
    assert [step["state"] for step in change.steps] == ["waiting"]
    Node.objects.update(last_seen=timezone.now())
    services.advance(change.pk)
    change.refresh_from_db()
    assert ([step["state"] for step in change.steps], change.message) == (["running"], "")


def test_a_step_under_way_is_not_given_up_because_no_report_came_for_a_while(actor: Actor) -> None:
    """The web process was down for minutes, and the first report is another node's."""
    node, deployment = make_node("busy"), make_deployment("chat")
    parts = [make_ready(make_partition(node, deployment=deployment, role=role)) for role in ("decode", "decode")]
    others = fleet(heard=2, silent=0)
    change = services.apply_change(
        [Move(parts[0].pk, deployment.pk, Role.PREFILL)], version=versions.current(), actor=actor
    )
    watch()
    long_ago = timezone.now() - timedelta(minutes=5)
    Node.objects.exclude(pk=others[0].pk).update(last_seen=long_ago)

    services.advance(change.pk)

    change.refresh_from_db()
    assert (change.state, [step["state"] for step in change.steps]) == ("running", ["running"])
    assert "The brake is on" in change.message


def test_with_a_release_a_change_goes_on(actor: Actor) -> None:
    node, deployment = make_node("busy"), make_deployment("chat")
    parts = [make_ready(make_partition(node, deployment=deployment, role=role)) for role in ("decode", "decode")]
    fleet(heard=0, silent=2)
    services.release_brake(actor=actor, reason="sold", for_s=60)

    change = services.apply_change(
        [Move(parts[0].pk, deployment.pk, Role.PREFILL)], version=versions.current(), actor=actor
    )

    assert [step["state"] for step in change.steps] == ["running"]
