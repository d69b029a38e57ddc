from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.alerts import courier, evaluation, services
from controlplane.alerts.models import AlertTarget
from controlplane.audit.services import Actor
from controlplane.fleet import reports
from controlplane.fleet.models import Node
from controlplane.telemetry import services as telemetry
from tests.alerts.sinks import MailSink, WebSink, mail_sink, web_sink
from tests.fleet.reporting import report_of
from tests.telemetry.conftest import _no_old_connections, ingest, live_valkey  # noqa: F401


@pytest.fixture
def web() -> Iterator[WebSink]:
    with web_sink() as sink:
        yield sink


@pytest.fixture
def post(settings: Any) -> Iterator[MailSink]:
    with mail_sink() as sink:
        settings.SMTP_URL = sink.url
        yield sink


@pytest.fixture
def hook(db: None, web: WebSink, actor: Actor) -> AlertTarget:
    return services.create_target(
        name="hook", kind="webhook", address=web.url, secret="signed with this", min_severity="info", actor=actor
    )


class Stage:
    """A fleet whose clock the test winds. Each look is a report of what is to be reported, a tick and a delivery."""

    def __init__(self) -> None:
        reports.forget()
        self.now: datetime = timezone.now()

    def look(self, *said: tuple[Node, dict[str, Any]], after_s: float = 10.0) -> None:
        self.now += timedelta(seconds=after_s)
        for node, fields in said:
            self.report(node, **fields)
        evaluation.tick(self.now)
        courier.deliver_due(self.now)

    def report(self, node: Node, **fields: Any) -> None:
        """Over both roads that a report takes: rows by fleet.reports, figures by telemetry."""
        node.refresh_from_db()
        report = report_of(node, **({"at": self.now.timestamp(), "agent_version": "0.1.0"} | fields))
        reports.receive(report, node=node, now=self.now)
        telemetry.take(node, report, self.now)


@pytest.fixture
def stage(db: None, live_valkey: Any) -> Iterator[Stage]:  # noqa: F811
    yield Stage()
    reports.forget()
