"""Alert rules over REST."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from controlplane.alerts.models import AlertRule


@pytest.mark.parametrize("labels", ['{"\\u0000": "x"}', '{"rack": "\\u0000"}', '{"\\ud800": "x"}', '{"a": "\\udfff"}'])
def test_labels_that_no_database_keeps_are_refused(admin: APIClient, labels: str) -> None:
    rule = AlertRule.objects.get(key="gpu-hot")
    body = f'{{"labels": {labels}}}'
    answer = admin.patch(f"/api/v1/alert-rules/{rule.pk}", body, content_type="application/json")
    assert answer.status_code in (400, 422), answer.content
    rule.refresh_from_db()
    assert rule.labels == {}


def test_a_rule_keeps_the_labels_it_is_given(admin: APIClient) -> None:
    rule = AlertRule.objects.get(key="gpu-hot")
    answer = admin.patch(f"/api/v1/alert-rules/{rule.pk}", {"labels": {"rack": "b12"}}, format="json")
    assert answer.status_code == 200, answer.content
    rule.refresh_from_db()
    assert rule.labels == {"rack": "b12"}
