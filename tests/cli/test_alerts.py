from __future__ import annotations

import json

from django.utils import timezone

from controlplane.alerts.models import Alert, Silence
from tests.cli.conftest import Terminal


def make_alert(name: str, **columns: object) -> Alert:
    at = timezone.now()
    row = {"rule": "gpu-hot", "severity": "warning", "subject_type": "gpu", "subject_id": 1, "state": "firing"}
    return Alert.objects.create(
        **(row | {"subject_name": name, "text": "91 °C.", "since": at, "fired_at": at} | columns)
    )


def test_alerts_are_listed_taken_on_and_silenced(terminal: Terminal) -> None:
    terminal.sign_in("operator")
    hot = make_alert("node-1/gpu0", labels={"rack": "b12"})
    make_alert("node-2/gpu0", subject_id=2, state="resolved", resolved_at=timezone.now())
    shown = terminal.ok("alerts")
    assert "node-1/gpu0" in shown and "GPU hot" in shown and "node-2" not in shown
    assert len(json.loads(terminal.ok("alerts", "--all", "--json"))) == 2
    assert "acknowledged" in terminal.ok("alerts", "ack", str(hot.pk), "-m", "on it")
    hot.refresh_from_db()
    assert hot.note == "on it" and hot.acknowledged_by in terminal.ok("alerts")
    terminal.ok("alerts", "silence", "--label", "rack=b12", "--for", "2h", "-m", "moving")
    assert "silenced" in terminal.ok("alerts") and "rack=b12" in terminal.ok("alerts", "silences")
    terminal.ok("alerts", "unsilence", str(Silence.objects.get().pk))
    assert "firing" in terminal.ok("alerts") and "No silences." in terminal.ok("alerts", "silences")


def test_a_silence_of_everything_and_a_label_without_a_value_are_refused(terminal: Terminal) -> None:
    terminal.sign_in("operator")
    assert "hide whatever" in terminal.fails(2, "alerts", "silence", "--for", "1h", "-m", "quiet")
    assert "no label" in terminal.fails(2, "alerts", "silence", "--label", "rack", "--for", "1h", "-m", "quiet")
    assert not Silence.objects.exists()


def test_a_viewer_looks_and_does_not_act(terminal: Terminal) -> None:
    terminal.sign_in("viewer")
    hot = make_alert("node-1/gpu0")
    terminal.ok("alerts")
    terminal.fails(3, "alerts", "ack", str(hot.pk))
