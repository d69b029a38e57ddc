"""Two deployments of which each would be served by the other kind of engines alone."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.gateway.models import DemandMinute, RequestRecord
from controlplane.scaling.models import LaneLook
from controlplane.scaling.proposing import propose
from controlplane.telemetry.latest import EngineFigures
from tests.factories import make_deployment, make_gpus, make_partition, make_ready
from tests.scaling.test_only_the_other import chat, half_an_hour_ago

pytestmark = pytest.mark.django_db
FULL = EngineFigures(running=3.0, waiting=0.0, kv_usage=1.0)
__all__ = ["chat"]


@pytest.fixture
def mail(chat: Deployment, figures: dict[int, EngineFigures], now: datetime) -> Deployment:
    """As chat is, asked the same; and room for one engine more."""
    node = Node.objects.get()
    row = make_deployment("mail", model=chat.model, slo_ttft_ms=2000, slo_itl_ms=11)
    engine = make_ready(
        make_partition(node, gpus=make_gpus(node, 4), deployment=row, role="aggregated"),
        phase_since=now - timedelta(hours=1),
    )
    figures[engine.pk] = EngineFigures(running=3.0, waiting=0.0, kv_usage=0.1)
    make_partition(node, gpus=make_gpus(node, 4))
    for one in DemandMinute.objects.filter(deployment="chat"):
        DemandMinute.objects.create(deployment="mail", minute=one.minute, arrivals=one.arrivals)
    copies = list(RequestRecord.objects.filter(deployment="chat"))
    for copy in copies:
        copy.pk, copy.deployment = None, "mail"
    RequestRecord.objects.bulk_create(copies)
    return row


def presses(figures: dict[int, EngineFigures], row: Deployment) -> None:
    figures[Partition.objects.get(deployment=row).pk] = FULL


def test_what_one_needs_comes_before_the_switch_of_the_other(
    chat: Deployment, mail: Deployment, figures: dict[int, EngineFigures], now: datetime
) -> None:
    """Both have waited for half an hour; mail cannot be switched, for it shall have no prefill engine."""
    assert propose(now) is None
    half_an_hour_ago(now)
    presses(figures, mail)
    Deployment.objects.filter(pk=mail.pk).update(max_prefill=0)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and not plan.switches
    assert {(move["deployment"], move["role"]) for move in plan.moves} == {(mail.pk, "aggregated")}


def test_of_two_that_wait_the_one_that_presses_is_switched(
    chat: Deployment, mail: Deployment, figures: dict[int, EngineFigures], now: datetime
) -> None:
    assert propose(now) is None
    half_an_hour_ago(now)
    presses(figures, mail)
    plan = propose(now + timedelta(seconds=1))
    assert plan is not None and plan.switches and {move["deployment"] for move in plan.moves} == {mail.pk}
    LaneLook.objects.filter(deployment=mail).update(other_since=now)
    plan = propose(now + timedelta(seconds=2))
    assert plan is not None and not plan.switches, "one that has not waited long has its engine instead"
