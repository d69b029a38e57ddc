"""What is cheaper at night and would not do by day is not switched to."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.domain.sizing import Slo
from controlplane.fleet.models import Deployment
from controlplane.gateway.models import DemandMinute
from controlplane.planning import sizes
from controlplane.planning.offers import offers
from controlplane.scaling import floors, kinds
from controlplane.scaling.floors import Sure, When
from controlplane.scaling.kinds import Asked
from tests.scaling.test_floors import asked, chat

pytestmark = pytest.mark.django_db
NIGHT, DAY = 0.05, 4.0  # requests a second
__all__ = ["chat"]


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def night(chat: Deployment, now: datetime) -> Asked:
    """Of a pair that is asked little; by day one engine for both phases would give no token within 11 ms."""
    asked(now, rate=2.0)
    trace, slo = sizes.recorded(chat, 24.0), Slo(2000.0, 11.0, 0.95)
    return Asked(trace.at_rate(NIGHT), NIGHT, slo, True, sizes.transfer_ms_per_token(chat), 0.95)


def test_the_other_kind_that_would_not_do_at_the_peak_is_told_and_not_switched_to(
    chat: Deployment, night: Asked, now: datetime
) -> None:
    found = offers(chat, {})[0]
    mine = kinds.fewest(night, found, apart=True)
    assert mine is not None
    plain = kinds.compare(night, found, mine, now)
    assert plain.ratio == 0.5 and plain.counts == {"aggregated": 1}
    by_day = kinds.compare(replace(night, peak=DAY), found, mine, now)
    assert by_day.ratio == 0.5 and by_day.counts is None
    told = "would do with 0.50 times the GPUs, but not at 4 requests a second, the most of the last day: 1 x TP4 "
    assert told in by_day.text
    assert kinds.compare(replace(night, peak=NIGHT), found, mine, now) == plain
    never = kinds.compare(replace(night, peak=1e4), found, mine, now)
    assert never == plain, "at a peak for which neither will do it makes no difference"


def test_the_peak_is_of_ten_minutes_of_the_last_day(chat: Deployment, now: datetime) -> None:
    asked(now, rate=0.5, minutes=1500)
    minutes = list(DemandMinute.objects.order_by("-minute"))
    for one in [*minutes[300:310], *minutes[1460:1490]]:
        one.arrivals = 240 if one.minute > now - timedelta(days=1) else 2400
        one.save()
    assert floors.floor(chat, {}, Sure(0.95, 0.95), When.at(now)).coming.peak == pytest.approx(4.0)


def test_a_doubt_comes_before_what_may_be_cut_off(
    chat: Deployment, night: Asked, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "sources", lambda found: {"roofline"})
    found = offers(chat, {})[0]
    mine = kinds.fewest(night, found, apart=True)
    told = kinds.compare(night, found, mine, now).text
    assert "times the GPUs (by a roofline alone: measure before you choose): 1 x" in told
