"""How fast deployments spend the share of requests that may miss their latency targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q

from controlplane.alerts.scene import Fact, Scene, Subject, Watch
from controlplane.domain.alert_rules import SLO_BUDGET, SLO_LEAST, SLO_LONG_S, SLO_SHORT_S
from controlplane.domain.alerting import burn
from controlplane.fleet import verified
from controlplane.fleet.models import Deployment
from controlplane.gateway.models import RequestRecord

# A request that failed before its first token missed it, however soon it failed.
_NEVER_BEGAN = Q(outcome="error", ttft_ms__isnull=True)


@dataclass(frozen=True, slots=True)
class _Slo:
    """`target` is a column of deployments, `column` the one of requests that is held against it."""

    target: str
    column: str
    what: str
    failed: Q


_TTFT = _Slo("slo_ttft_ms", "ttft_ms", "the first token", _NEVER_BEGAN)
_ITL = _Slo("slo_itl_ms", "itl_ms", "each token", Q(pk__in=[]))


def ttft_burn(scene: Scene, watch: Watch) -> Iterator[Fact]:
    return _burns(scene, watch, _TTFT)


def itl_burn(scene: Scene, watch: Watch) -> Iterator[Fact]:
    return _burns(scene, watch, _ITL)


def _burns(scene: Scene, watch: Watch, slo: _Slo) -> Iterator[Fact]:
    has_target = Deployment.objects.filter(**{f"{slo.target}__isnull": False})
    for pk, name, limit_ms in has_target.order_by("name").values_list("pk", "name", slo.target):
        subject = Subject("deployment", pk, name, None, {"deployment": name})
        missed = Q(**{f"{slo.column}__gt": limit_ms}) | slo.failed
        counted = Q(**{f"{slo.column}__isnull": False}) | slo.failed
        short = _burn(name, scene.now, SLO_SHORT_S, missed, counted)
        if short is None or not watch.limits.is_near(short):
            value: float | None = short
        else:  # the hour is many rows: asked for only where the minutes are bad
            hour = _burn(name, scene.now, SLO_LONG_S, missed, counted)
            value = None if hour is None else min(short, hour)
        yield Fact(subject, value, f"Misses {limit_ms} ms to {slo.what} {value or 0:.1f} times as often as it may.")


def _burn(deployment: str, now: datetime, window_s: float, missed: Q, counted: Q) -> float | None:
    """Without a gateway that lives, no request is no news."""
    rows = RequestRecord.objects.filter(
        deployment=deployment, at__gt=now - timedelta(seconds=window_s), at__lte=now
    ).order_by()
    found = rows.aggregate(bad=Count("id", filter=missed), total=Count("id", filter=counted))
    if not found["total"] and not verified.gateway_alive(now):
        return None
    return burn(found["bad"], found["total"], SLO_BUDGET, least=SLO_LEAST)
