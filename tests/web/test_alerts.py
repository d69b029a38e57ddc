from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.urls import reverse
from django.utils import timezone

from controlplane.alerts import services
from controlplane.alerts.models import Alert, AlertRule, AlertTarget, Silence
from controlplane.audit.services import Actor
from controlplane.web.alert_forms import words_of
from tests.web.conftest import Clients, text


def test_what_fires_is_listed_taken_on_silenced_and_counted_on_every_page(
    as_role: Clients, fleet: SimpleNamespace
) -> None:
    operator = as_role("operator")
    page = text(operator.get(reverse("web:alerts")))
    assert "Node silent" in page and " Acknowledge " in page
    assert "nobody yet" in text(as_role("viewer").get(reverse("web:alerts")))
    assert "1 alert firing" in operator.get(reverse("web:nodes")).content.decode()
    form = {"note": "on my way", "next": reverse("web:alerts")}  # from the list one comes back to it
    assert operator.post(reverse("web:alert-acknowledge", args=[fleet.alert.pk]), form)["Location"] == form["next"]
    assert "on my way" in text(operator.get(reverse("web:alerts")))
    form = {"rule": "node-silent", "hours": 4, "labels": "", "subject": "gpu-*", "reason": "rack moves"}
    assert operator.post(reverse("web:alert-silence"), form).status_code == 302
    assert "silenced" in text(operator.get(reverse("web:alerts")))
    assert "alert firing" not in operator.get(reverse("web:nodes")).content.decode()  # what nobody is told of
    assert operator.get(reverse("web:alerts-badge"), {"n": "0"}).status_code == 204
    operator.post(reverse("web:silence-end", args=[Silence.objects.get(subject="gpu-*").pk]))
    assert not Silence.objects.filter(subject="gpu-*", until__gt=timezone.now()).exists()


def test_an_old_list_takes_no_alert_from_somebody(as_role: Clients, fleet: SimpleNamespace) -> None:
    pk, url = fleet.alert.pk, reverse("web:alert-acknowledge", args=[fleet.alert.pk])
    services.acknowledge(pk, note="swapping the switch", actor=Actor(name="olga", source="web"))
    operator = as_role("operator")
    form = {"seen": "", "next": reverse("web:alerts") + "?filter=silent"}  # the list was drawn before olga's
    answer = operator.post(url, form)
    assert answer["Location"] == form["next"]
    assert "Nothing was changed. olga already looks after it." in text(operator.get(answer["Location"]))
    row = Alert.objects.get(pk=pk)
    assert (row.acknowledged_by, row.note) == ("olga", "swapping the switch")
    assert 'name="seen" value="olga"' in operator.get(reverse("web:alert", args=[pk])).content.decode()
    operator.post(url, {"seen": "olga", "note": ""})  # whoever sees it may take it over
    row.refresh_from_db()
    assert row.acknowledged_by != "olga"
    assert row.note == "swapping the switch"


def test_a_way_back_that_is_no_path_is_not_taken(as_role: Clients, fleet: SimpleNamespace) -> None:
    answer = as_role("operator").post(reverse("web:alert-acknowledge", args=[fleet.alert.pk]), {"next": "somewhere"})
    assert answer["Location"] == reverse("web:alert", args=[fleet.alert.pk])


def test_a_part_that_has_nothing_new_says_so(as_role: Clients, fleet: SimpleNamespace) -> None:
    viewer = as_role("viewer")
    assert viewer.get(reverse("web:alerts-badge"), {"n": "1"}).status_code == 204
    assert viewer.get(reverse("web:alerts-badge"), {"n": "0"}).status_code == 200
    key = viewer.get(reverse("web:alerts")).context["key"]
    assert viewer.get(reverse("web:alerts-now"), {"key": key}).status_code == 204
    Alert.objects.all().delete()
    assert "Nothing fires" in viewer.get(reverse("web:alerts-now"), {"key": key}).content.decode()


def test_limits_are_read_and_changed_in_the_units_of_people(as_role: Clients, fleet: SimpleNamespace) -> None:
    disk = AlertRule.objects.get(key="disk-low")
    assert words_of(disk) == "At most 50 GiB, for 1 min"
    form = {"enabled": "on", "threshold": "20", "for_s": "0", "severity": "critical", "labels": "rack=b"}
    as_role("admin").post(reverse("web:alert-rule", args=[disk.pk]), form)
    disk.refresh_from_db()
    assert (disk.threshold, disk.severity, disk.labels) == (20 * 1024**3, "critical", {"rack": "b"})
    assert words_of(disk) == "At most 20 GiB, at once"


@pytest.mark.parametrize("path", ["alert-target", "alert-targets"])
def test_no_address_and_no_secret_is_shown_again(path: str, as_role: Clients, fleet: SimpleNamespace) -> None:
    args = [fleet.target.pk] if path == "alert-target" else []
    assert "s3cret-path" not in as_role("admin").get(reverse(f"web:{path}", args=args)).content.decode()


def test_a_target_is_made_and_its_test_tells_the_real_outcome(as_role: Clients, fleet: SimpleNamespace) -> None:
    admin = as_role("admin")
    form = {"name": "cloud", "kind": "webhook", "address": "http://169.254.169.254/", "min_severity": "info"}
    refused = admin.post(reverse("web:alert-targets"), form)
    assert refused.status_code == 400 and "link-local" in text(refused)
    assert not AlertTarget.objects.filter(name="cloud").exists()
    page = text(admin.post(reverse("web:target-test", args=[fleet.target.pk]), follow=True))
    assert "hook did not take the test message. The connection was refused or broke." in page
