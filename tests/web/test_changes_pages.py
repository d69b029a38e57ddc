"""The pages of changes: the list, one with its progress, resume, roll back, undo."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.rollout import Move
from controlplane.fleet import services, versions
from controlplane.fleet.models import Change, Partition
from tests import factories
from tests.web.conftest import Clients, text
from workers.contract import Role

OLGA = Actor(name="olga", source="web")


def flip(row: Partition, pair: SimpleNamespace, role: Role = Role.PREFILL) -> Change:
    moves = [Move(row.pk, pair.deployment.pk, role)]
    return services.apply_change(moves, version=versions.current(), actor=OLGA, reason="TTFT is climbing")


def finish(change: Change) -> Change:
    """As the agents' reports would: the engine of each step is ready as it should be."""
    while change.state == Change.State.RUNNING:
        step = next(step for step in change.steps if step["state"] == "running")
        row = Partition.objects.get(pk=step["partition"])
        factories.make_ready(row) if row.role else Partition.objects.filter(pk=row.pk).update(phase="", pid=0)
        services.advance(change.pk)
        change.refresh_from_db()
    return change


def stop(change: Change) -> Change:
    """The engine of the step that runs does not come up."""
    for step in change.steps:
        Partition.objects.filter(pk=step["partition"]).update(phase="starting", observed_generation=0)
        step["deadline_s"] = 5.0
        step["began_at"] = (timezone.now() - timedelta(seconds=60)).isoformat()
    change.save()
    services.advance(change.pk)
    change.refresh_from_db()
    assert change.state == Change.State.STOPPED
    return change


def test_an_empty_list_says_the_next_step(as_role: Clients) -> None:
    assert "To the board" in text(as_role("viewer").get(reverse("web:changes")))


def test_the_list_tells_what_who_why_and_how_far(as_role: Clients, pair: SimpleNamespace) -> None:
    finish(flip(pair.decode, pair))
    page = text(as_role("viewer").get(reverse("web:changes")))
    assert "gpu-1/p1 to prefill of chat" in page
    assert "olga" in page
    assert "TTFT is climbing" in page
    assert "done" in page
    assert "No change is stopped" in text(as_role("viewer").get(reverse("web:changes"), {"state": "stopped"}))


def test_a_running_change_shows_its_step_and_is_asked_for_again(as_role: Clients, pair: SimpleNamespace) -> None:
    change = flip(pair.decode, pair)
    answer = as_role("viewer").get(reverse("web:change-progress", args=[change.pk]))
    assert 'hx-trigger="every 1s"' in answer.content.decode()
    assert "0 of 1 step" in text(answer)
    finish(change)
    answer = as_role("viewer").get(reverse("web:change-progress", args=[change.pk]))
    assert "hx-trigger" not in answer.content.decode()
    assert "1 of 1 step" in text(answer)
    assert "Undo" not in text(answer)  # a viewer's page


def test_a_change_says_that_the_brake_holds_it(as_role: Clients, pair: SimpleNamespace) -> None:
    change, client = flip(pair.decode, pair), as_role("viewer")
    addresses = [reverse("web:changes"), reverse("web:change", args=[change.pk]), reverse("web:changes-recent")]
    assert all("held by the brake" not in text(client.get(address)) for address in addresses)
    for number in range(2):
        factories.make_node(f"gone-{number}", last_seen=timezone.now() - timedelta(seconds=30))
    assert all("held by the brake" in text(client.get(address)) for address in addresses)
    Change.objects.update(state=Change.State.DONE)
    assert all("held by the brake" not in text(client.get(address)) for address in addresses)


def test_one_click_undoes_a_relabel(as_role: Clients, pair: SimpleNamespace) -> None:
    change = flip(pair.decode, pair)
    if change.moves[0]["action"] != "relabel":
        pytest.fail("the fixture's roles have equal engine content")
    finish(change)
    client = as_role("operator")
    assert (
        '<input type="hidden" name="quick" value="1">'
        in client.get(reverse("web:change", args=[change.pk])).content.decode()
    )
    answer = client.post(reverse("web:change-undo", args=[change.pk]), {"quick": "1"})
    undo = Change.objects.get(undoes=change)
    assert answer["Location"] == reverse("web:change", args=[undo.pk])
    assert (undo.kind, undo.reason) == ("undo", f"undo of change {change.pk}")
    pair.decode.refresh_from_db()
    assert pair.decode.role == "decode"
    assert f"Undone by change {undo.pk}" in text(client.get(reverse("web:change", args=[change.pk])))


def test_an_undo_that_restarts_engines_is_previewed_first(as_role: Clients, pair: SimpleNamespace) -> None:
    change = services.apply_change(
        [Move(pair.decode.pk, None, None)], version=versions.current(), actor=OLGA, reason="making room"
    )
    finish(change)
    client = as_role("operator")
    assert "Undo…" in text(client.get(reverse("web:change", args=[change.pk])))
    answer = client.post(reverse("web:change-undo", args=[change.pk]), {"quick": "1"})
    assert answer.status_code == 409  # one click is for relabels
    page = client.get(reverse("web:change-undo", args=[change.pk]))
    assert "It did not help" in text(page) and "TTFT is climbing" not in text(page).split("Reason")[1]
    assert f"Undo of change {change.pk}" in text(page)
    assert "start" in text(page)
    assert "data-remove" not in page.content.decode()
    client.post(
        reverse("web:change-undo", args=[change.pk]), {"version": versions.current(), "reason": "it was too much"}
    )
    assert Change.objects.get(undoes=change).reason == "it was too much"


def test_an_undo_of_what_somebody_changed_since_says_so(as_role: Clients, pair: SimpleNamespace) -> None:
    change = finish(flip(pair.decode, pair))
    services.assign(pair.decode.pk, deployment_id=pair.deployment.pk, role="aggregated", actor=OLGA)
    answer = as_role("operator").get(reverse("web:change-undo", args=[change.pk]), follow=True)
    assert f"no longer as change {change.pk} left it" in text(answer)
    assert "Nothing was changed" in text(answer)


def test_a_stopped_change_says_where_it_stands_and_what_can_be_done(as_role: Clients, pair: SimpleNamespace) -> None:
    change = stop(flip(pair.decode, pair))
    client = as_role("operator")
    page = text(client.get(reverse("web:change", args=[change.pk])))
    assert "Stopped; the fleet serves on" in page
    assert "was not confirmed within" in page
    assert "Resume" in page
    assert "Roll back" in page
    answer = client.post(reverse("web:change-resume", args=[change.pk]), follow=True)
    assert "Say why" in text(answer)
    change.refresh_from_db()
    assert change.state == Change.State.STOPPED


@pytest.mark.parametrize(("verb", "said"), [("resume", "resume"), ("rollback", "roll-back")])
def test_it_goes_on_or_back_with_a_reason(verb: str, said: str, as_role: Clients, pair: SimpleNamespace) -> None:
    change = stop(flip(pair.decode, pair))
    as_role("operator").post(reverse(f"web:change-{verb}", args=[change.pk]), {"reason": "the node is back"})
    change.refresh_from_db()
    assert change.state in (Change.State.RUNNING, Change.State.ROLLED_BACK)
    assert change.backwards is (verb == "rollback")
    assert AuditEvent.objects.get(verb=said).reason == "the node is back"


def test_a_change_that_is_done_cannot_be_resumed(as_role: Clients, pair: SimpleNamespace) -> None:
    change = finish(flip(pair.decode, pair))
    answer = as_role("operator").post(reverse("web:change-resume", args=[change.pk]), {"reason": "again"}, follow=True)
    assert "Only a stopped change can be resumed" in text(answer)


def test_there_is_no_such_change(as_role: Clients) -> None:
    assert as_role("viewer").get(reverse("web:change", args=[999])).status_code == 404
    assert as_role("operator").post(reverse("web:change-undo", args=[999])).status_code == 404


def test_the_trail_leads_to_the_change(as_role: Clients, pair: SimpleNamespace) -> None:
    change = finish(flip(pair.decode, pair))
    page = as_role("viewer").get(reverse("web:activity")).content.decode()
    assert f'href="{reverse("web:change", args=[change.pk])}"' in page
