"""The web process's figures for Prometheus need a token."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from tests.factories import make_user

pytestmark = pytest.mark.django_db
SCRAPER = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"


def test_nobody_reads_metrics_without_a_login() -> None:
    response = APIClient().get("/metrics", headers={"Accept": SCRAPER})

    assert response.status_code == 401
    assert b"django_" not in response.content


def test_a_user_without_a_role_does_not_read_them() -> None:
    client = APIClient()
    client.force_authenticate(make_user(""))

    assert client.get("/metrics").status_code == 403


def test_a_viewer_reads_them_as_prometheus_asks() -> None:
    client = APIClient()
    client.force_authenticate(make_user("viewer"))

    response = client.get("/metrics", headers={"Accept": SCRAPER})

    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert b"django_http_requests_before_middlewares_total" in response.content
