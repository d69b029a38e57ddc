"""Samples over REST, of what has none."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from tests.factories import make_node


@pytest.mark.parametrize("shape", ["series", "band", "total"])
@pytest.mark.parametrize("metric", ["kv_usage", "generation_tps", "utilization", "ttft_ms"])
def test_a_node_without_gpus_or_partitions_has_no_samples_and_no_error(
    viewer: APIClient, metric: str, shape: str
) -> None:
    node = make_node()
    answer = viewer.get(f"/api/v1/samples?node={node.pk}&metric={metric}&shape={shape}")
    assert answer.status_code == 200, answer.content
