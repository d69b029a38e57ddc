from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.alerts import courier, outbox, services, wire
from controlplane.alerts.models import Alert, AlertTarget, Delivery, Notification
from controlplane.alerts.sealing import unseal
from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet.errors import Invalid
from tests.alerts.sinks import WebSink

pytestmark = pytest.mark.django_db
T0 = timezone.now()


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def fire(name: str = "n", *, now: datetime = T0, **columns: object) -> Alert:
    row = {"rule": "node-silent", "severity": "critical", "subject_type": "node", "subject_id": hash(name) % 10**6}
    fields = {**row, "subject_name": name, "text": "No report.", "since": now, "fired_at": now, "state": "firing"}
    alert = Alert.objects.create(**(fields | columns))
    outbox.put(now)
    return alert


def end(alert: Alert, now: datetime) -> None:
    alert.state, alert.resolved_at = "resolved", now
    alert.save()
    outbox.put(now)


def test_many_at_once_are_one_notification_and_the_next_waits_for_the_window(hook: AlertTarget, web: WebSink) -> None:
    for n in range(40):
        fire(f"n{n}")
    courier.deliver_due(at(0))
    assert [len(body["alerts"]) for body in web.bodies] == [40]
    fire("later", now=at(5))
    courier.deliver_due(at(10))
    assert len(web.bodies) == 1
    fire("latest", now=at(20))
    courier.deliver_due(at(31))
    assert [told[2] for told in web.transitions[40:]] == ["later", "latest"]
    courier.deliver_due(at(500))
    assert web.asked == 2, "nothing is told twice"


def test_it_is_tried_again_with_the_same_key_and_ever_less_often(hook: AlertTarget, web: WebSink) -> None:
    web.answers = [500, 503]
    alert = fire()
    for seconds in range(0, 60, 5):
        courier.deliver_due(at(seconds))
    assert (web.asked, len(web.bodies)) == (3, 1)
    note = Notification.objects.get()
    assert (note.state, note.attempts) == ("sent", 3)
    assert web.headers[0]["idempotency-key"] == str(note.key) == web.bodies[0]["key"]
    assert note.sent_at == at(30), "tried after 10 s and 20 s more"
    assert web.bodies[0]["alerts"][0]["id"] == alert.pk
    hook.refresh_from_db()
    assert (hook.error, hook.sent_at) == ("", at(30))


def test_an_end_never_overtakes_its_beginning(hook: AlertTarget, web: WebSink) -> None:
    web.answers = [500] * 4
    alert = fire()
    courier.deliver_due(at(0))
    end(alert, at(5))
    for seconds in range(5, 400, 5):
        courier.deliver_due(at(seconds))
    assert [told[0] for told in web.transitions] == ["fired", "resolved"]


def test_after_a_day_it_is_given_up_and_its_end_is_no_news(hook: AlertTarget, web: WebSink) -> None:
    web.answers = [500] * 1000
    alert = fire()
    courier.deliver_due(at(0))
    end(alert, at(3600))
    courier.deliver_due(at(24 * 3600 + 1))
    assert Notification.objects.get().state == "failed"
    web.answers = []
    courier.deliver_due(at(24 * 3600 + 60))
    assert web.bodies == [] and not Delivery.objects.filter(notification=None).exists()
    hook.refresh_from_db()
    assert "500" in hook.error


def test_what_the_target_calls_malformed_does_not_block_the_rest(hook: AlertTarget, web: WebSink) -> None:
    web.answers = [422]
    fire("odd")
    courier.deliver_due(at(0))
    fire("good", now=at(1))
    courier.deliver_due(at(31))
    assert [told[2] for told in web.transitions] == ["good"]


def test_a_notification_whose_sender_died_is_sent_by_the_next(hook: AlertTarget, web: WebSink) -> None:
    fire()
    claimed = courier._claim(hook.pk, at(0))
    assert claimed is not None
    courier.deliver_due(at(60))
    assert web.asked == 0
    courier.deliver_due(at(courier.CLAIM_S + 1))
    assert web.bodies[0]["key"] == str(claimed.key)


def test_a_webhook_is_signed(hook: AlertTarget, web: WebSink) -> None:
    fire()
    courier.deliver_due(at(0))
    said = dict(part.split("=") for part in web.headers[0]["forebay-signature"].split(","))
    wanted = hmac.new(b"signed with this", f"{said['t']}.".encode() + web.raw[0], hashlib.sha256).hexdigest()
    assert said["v1"] == wanted


def test_slack_and_pagerduty_get_their_own_words(web: WebSink, actor: Actor) -> None:
    services.create_target(name="slack", kind="slack", address=web.url, actor=actor)
    services.create_target(name="pager", kind="pagerduty", address=web.url, secret="R0UT1NG", actor=actor)
    alert = fire("<!channel>")
    courier.deliver_due(at(0))
    end(alert, at(10))
    courier.deliver_due(at(40))
    pages = [body for body in web.bodies if "event_action" in body]
    words = [body for body in web.bodies if "attachments" in body]
    assert [(page["event_action"], page["routing_key"]) for page in pages] == [
        ("trigger", "R0UT1NG"), ("resolve", "R0UT1NG"),
    ]  # fmt: skip
    assert len({page["dedup_key"] for page in pages}) == 1 and pages[0]["payload"]["severity"] == "critical"
    assert "<!channel>" not in json.dumps(words) and "&lt;!channel&gt;" in words[0]["text"]


def test_a_target_hears_of_its_severities_alone(web: WebSink, actor: Actor) -> None:
    services.create_target(name="t", kind="webhook", address=web.url, min_severity="critical", actor=actor)
    fire("mild", severity="warning")
    fire("bad")
    courier.deliver_due(at(0))
    assert [told[2] for told in web.transitions] == ["bad"]


def test_what_is_silenced_is_told_when_the_silence_ends_if_it_still_fires(
    hook: AlertTarget, web: WebSink, actor: Actor
) -> None:
    services.silence(until=at(600), reason="rack b12 moves", subject="b12-*", actor=actor)
    over = fire("b12-1")
    fire("b12-2")
    fire("b13-1")
    courier.deliver_due(at(0))
    assert [told[2] for told in web.transitions] == ["b13-1"]
    end(over, at(100))
    outbox.put(at(700))
    courier.deliver_due(at(700))
    assert [told[2] for told in web.transitions] == ["b13-1", "b12-2"]


def test_nothing_is_sent_where_machines_get_credentials(actor: Actor) -> None:
    for url in ("http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.1.1]/", "ftp://a/",
                "http://0.0.0.0/", "file:///etc/passwd", "http://user:pw@host/", "nothing"):  # fmt: skip
        with pytest.raises(Invalid):
            services.create_target(name="t", kind="webhook", address=url, actor=actor)
        assert not wire.post(url, b"{}", {}).ok
    assert AlertTarget.objects.count() == 0


def test_redirects_are_not_followed(hook: AlertTarget, web: WebSink, actor: Actor) -> None:
    web.answers = [302]
    outcome = services.try_target(hook.pk, actor=actor)
    assert not outcome.ok and "redirects" in outcome.message
    assert web.asked == 1


def test_a_trial_says_what_came_of_it(hook: AlertTarget, web: WebSink, actor: Actor) -> None:
    assert services.try_target(hook.pk, actor=actor).ok
    assert web.bodies[0]["alerts"][0]["rule"] == "test"
    mail = services.create_target(name="m", kind="email", address="a@b.example", actor=actor)
    assert "FOREBAY_SMTP_URL" in services.try_target(mail.pk, actor=actor).message


def test_no_secret_and_no_path_is_kept_in_the_open(hook: AlertTarget, web: WebSink, actor: Actor) -> None:
    changed = services.change_target(hook.pk, name="renamed", actor=actor)
    assert (unseal(changed.sealed).secret, unseal(changed.sealed).address) == ("signed with this", web.url)
    services.change_target(hook.pk, secret="another", actor=actor)
    rows = str(list(AlertTarget.objects.values())) + str(list(AuditEvent.objects.values()))
    for secret in ("signed with this", "another", "s3cret-path"):
        assert secret not in rows
    assert "set anew" in rows


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "fax"}, {"kind": "email", "address": "nobody"}, {"kind": "pagerduty", "secret": ""}, {"name": " "},
     {"min_severity": "loud"}, {"address": "x" * 3000}],
)  # fmt: skip
def test_a_target_that_could_not_be_reached_is_refused(wrong: dict[str, str], actor: Actor) -> None:
    with pytest.raises(Invalid) as refused:
        services.create_target(
            **({"name": "t", "kind": "webhook", "address": "http://h/"} | wrong),
            actor=actor,  # type: ignore[arg-type]
        )
    assert all(problem.fix for problem in refused.value.problems)


@pytest.fixture
def kept(settings: object) -> Callable[[], set[str]]:
    return lambda: {alert.subject_name for alert in Alert.objects.all()}


def test_history_is_kept_for_90_days(kept: Callable[[], set[str]]) -> None:
    from controlplane.alerts.tasks import prune

    fire("old", state="resolved", resolved_at=T0 - timedelta(days=91))
    fire("young", state="resolved", resolved_at=T0 - timedelta(days=89))
    fire("firing", now=T0 - timedelta(days=200))
    prune()
    assert kept() == {"young", "firing"}
