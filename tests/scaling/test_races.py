"""Two control workers look at the same moment: one plan is open, whoever was first."""

from __future__ import annotations

from datetime import datetime

import pytest

from controlplane.fleet.models import Deployment
from controlplane.scaling.models import ScalingPlan
from controlplane.scaling.proposing import propose
from tests.fleet.test_races import at_once
from tests.scaling.conftest import Tell

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("attempt", range(3))
def test_of_two_looks_at_once_one_plan_is_open_and_neither_fails(
    llama: Deployment, now: datetime, ended: Tell, attempt: int
) -> None:
    ended("llama", ttft_ms=100.0, itl_ms=70.0)
    results = at_once(*[lambda: propose(now)] * 4)
    assert [result for result in results if isinstance(result, Exception)] == []
    plan = ScalingPlan.objects.get(state=ScalingPlan.State.OPEN)
    assert {result.pk for result in results if isinstance(result, ScalingPlan)} == {plan.pk}
