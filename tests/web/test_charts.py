"""Which charts a page offers: by what runs, and beside which objectives."""

from __future__ import annotations

import re

import pytest

from controlplane.fleet.models import Deployment
from controlplane.telemetry.series import METRICS
from controlplane.web import charts
from tests.factories import make_deployment
from tests.web.conftest import Clients

pytestmark = pytest.mark.django_db


def titles(found: tuple[charts.Chart, ...]) -> list[str]:
    return [chart.title for chart in found]


def test_a_deployment_has_charts_of_the_roles_that_it_runs() -> None:
    deployment = make_deployment()
    assert all(title.startswith("Aggregated") for title in titles(charts.of_deployment(deployment, {"aggregated"})))
    both = charts.of_deployment(deployment, {"prefill", "decode"})
    assert {chart.role for chart in both} == {"prefill", "decode", ""}
    assert titles(charts.of_deployment(deployment, set())) == titles(both)  # before anything is assigned


def test_latencies_of_a_deployment_stand_beside_its_objectives() -> None:
    deployment = Deployment(name="chat", slo_ttft_ms=400, slo_itl_ms=None)
    found = {chart.metrics: chart.slo for chart in charts.of_deployment(deployment, {"prefill", "decode"})}
    assert found[("ttft_ms",)] == 400
    assert found[("itl_ms",)] is None


def test_the_fleet_has_an_objective_where_all_deployments_agree() -> None:
    for itl_ms in (40, 25):
        make_deployment(slo_ttft_ms=500, slo_itl_ms=itl_ms)
    found = {chart.metrics: chart.slo for chart in charts.of_fleet()}
    assert found[("ttft_ms",)] == 500
    assert found[("itl_ms",)] is None


def test_every_chart_asks_for_what_there_is() -> None:
    deployment = make_deployment()
    offered = [charts.NODE, charts.of_fleet(), charts.of_model()]
    offered.append(charts.of_deployment(deployment, {"prefill", "decode", "aggregated"}))
    assert {metric for some in offered for chart in some for metric in chart.metrics} <= METRICS.keys()


def test_pages_say_whose_samples_their_charts_draw(as_role: Clients) -> None:
    viewer = as_role("viewer")
    deployment = make_deployment(slo_ttft_ms=412)
    page = viewer.get(f"/deployments/{deployment.pk}/").content.decode()
    assert f'data-subject="deployment={deployment.pk}"' in page
    assert re.search(r'data-metrics="ttft_ms"[^>]*data-slo="412"', page)
    fleet = viewer.get("/").content.decode()
    assert 'data-subject="fleet=true"' in fleet
    assert 'data-ask="&amp;quantile=0.5,0.95"' in fleet
    model = viewer.get(f"/models/{deployment.model_id}/").content.decode()
    assert f'data-subject="model={deployment.model_id}"' in model
