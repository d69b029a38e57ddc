"""The control plane's figures for Prometheus: of this web process, and of the fleet as any of them knows it. They name
routes, nodes and models, so they need a token like all else. docs/metrics.md lists them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count
from django.http import HttpResponse
from django.utils import timezone
from django_prometheus import exports
from drf_spectacular.utils import extend_schema
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.alerts.models import Alert
from controlplane.api.strict import refuse_unknown_parameters
from controlplane.domain.alerting import SEVERITIES
from controlplane.fleet import pool_view
from controlplane.fleet.models import GatewayBeat
from controlplane.fleet.verified import ALIVE_S
from controlplane.scaling.standing import standing
from controlplane.telemetry import exposition, live


class Text(BaseRenderer):
    """So that a scraper's Accept header is served; a refusal is the problem's own text."""

    media_type = "text/plain"
    format = "txt"
    charset = "utf-8"

    def render(self, data: Any, media_type: str | None = None, context: dict[str, Any] | None = None) -> str:
        return str(data.get("detail", data)) if isinstance(data, dict) else str(data)


class Metrics(APIView):
    role_action = "view"
    renderer_classes = [Text]

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        refuse_unknown_parameters(request, {"gpus"})
        response = exports.ExportToDjangoView(request._request)
        response.content += fleet_text(gpus=_wants_gpus(request))
        return response


def fleet_text(*, gpus: bool = False) -> bytes:
    """What is the same whichever web process is asked."""
    return exposition.text(_families(gpus))


def _families(gpus: bool) -> Iterator[Metric]:
    now = timezone.now()
    yield from exposition.families(live.look().fleet, gpus=gpus)
    yield from _gateways(now)
    yield from _alerts()
    yield from _scaling(now)
    yield _woken_ahead(now)
    yield _lent()
    yield _asleep()


def _gateways(now: datetime) -> Iterator[Metric]:
    alive = GatewayBeat.objects.filter(seen_at__gte=now - timedelta(seconds=ALIVE_S)).count()
    yield GaugeMetricFamily("forebay_gateways", "Gateway processes that live", value=alive)


def _alerts() -> Iterator[Metric]:
    """Zeros too: a severity that is not there and one without alerts are not the same to a rule."""
    firing = Alert.objects.filter(state=Alert.State.FIRING).order_by().values_list("severity").annotate(Count("pk"))
    counts = dict(firing)
    family = GaugeMetricFamily("forebay_alerts_firing", "Forebay's own alerts that fire", labels=["severity"])
    for severity in SEVERITIES:
        family.add_metric([severity.value], counts.get(severity.value, 0))
    yield family


def _scaling(now: datetime) -> Iterator[Metric]:
    """Nothing of a look that is old: it is not known then what roles want."""
    labels = ["deployment", "role"]
    wanted = GaugeMetricFamily("forebay_scaling_wanted", "Engines that the role shall have", labels=labels)
    short = GaugeMetricFamily("forebay_scaling_short", "Of those, the ones without a partition", labels=labels)
    found = standing(now)
    for lane in found.lanes if not found.is_late else ():
        wanted.add_metric([lane.deployment.name, lane.role], lane.wanted)
        short.add_metric([lane.deployment.name, lane.role], lane.short)
    yield from (wanted, short)


def _lent() -> Metric:
    family = GaugeMetricFamily(
        "forebay_pool_lent_slots", "Slots of the pool that are lent to a dedicated deployment", labels=["deployment"]
    )
    for name, count in pool_view.lent_slots().items():
        family.add_metric([name], count)
    return family


def _asleep() -> Metric:
    family = GaugeMetricFamily("forebay_pool_sleepers", "Engines that sleep in slots of the pool", labels=["level"])
    for level, count in sorted(pool_view.sleepers_by_level().items()):
        family.add_metric([str(level)], count)
    return family


def _woken_ahead(now: datetime) -> Metric:
    name, about = "forebay_pool_woken_ahead", "Models that the pool woke before anybody asked, in the last day"
    tally, family = pool_view.tally(now), GaugeMetricFamily(name, about, labels=["asked_for"])
    family.add_metric(["yes"], tally.came)
    family.add_metric(["no"], tally.ahead - tally.came)  # or not yet
    return family


def _wants_gpus(request: Request) -> bool:
    wanted = request.query_params.get("gpus", "0")
    if wanted not in {"0", "1"}:
        raise ValidationError({"gpus": ["Use gpus=1 for the figures of each GPU, or leave it out."]})
    return wanted == "1"
