"""Load that presses on deployments, and looks at it by the real planner: what the pictures of Scaling show."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet.models import Deployment
from controlplane.gateway.models import DemandMinute, RequestRecord
from controlplane.planning.models import RecordedSpan
from controlplane.scaling import plans
from controlplane.scaling.models import LaneLook, ScalingPlan
from controlplane.scaling.proposing import propose

ANA = Actor.system("ana")


def press() -> tuple[int, int]:
    """A plan that was applied, one that was dismissed, one that was superseded, and one that is open: the numbers of
    the first and the last."""
    _ask("chat-8b", 240)
    _ask("mini-1b", 30)
    Deployment.objects.filter(name="mini-1b").update(min_aggregated=7)
    first = plans.apply(_look().pk, actor=ANA, reason="the report runs tonight")
    _finish()
    Deployment.objects.filter(name="mini-1b").update(min_aggregated=8)
    plans.dismiss(_look().pk, actor=ANA, reason="a load test of ours")
    Deployment.objects.filter(name="code-8b").update(min_prefill=3)
    _look()
    _late("chat-8b", ttft_ms=310.0, itl_ms=71.0)
    return first.pk, _look().pk


def stop_looking() -> None:
    LaneLook.objects.update(at=timezone.now() - timedelta(minutes=11))


def _look() -> ScalingPlan:
    found = propose(timezone.now())
    assert found is not None
    return found


def _finish() -> None:
    """Changes go on by themselves, but not in the time that pictures take."""
    from controlplane.fleet.models import Change

    Change.objects.update(state=Change.State.DONE, finished_at=timezone.now())


def _ask(name: str, per_minute: int) -> None:
    end = timezone.now().replace(second=0, microsecond=0)
    RecordedSpan.objects.get_or_create(source="gateway", start=end - timedelta(hours=3), defaults={"end": end})
    DemandMinute.objects.bulk_create(
        DemandMinute(deployment=name, minute=end - timedelta(minutes=ago), arrivals=per_minute + 7 * (ago % 5))
        for ago in range(1, 180)
    )


def _late(name: str, *, ttft_ms: float, itl_ms: float) -> None:
    now = timezone.now()
    RequestRecord.objects.bulk_create(
        RequestRecord(
            at=now - timedelta(seconds=20), deployment=name, kind="chat", outcome="ok", status=200, path="pair",
            prompt_tokens=900, completion_tokens=150, ttft_ms=ttft_ms, itl_ms=itl_ms, total_ms=ttft_ms + 150 * itl_ms,
            request_id=f"late-{name}-{place}", streamed=True,
        )
        for place in range(40)
    )  # fmt: skip
