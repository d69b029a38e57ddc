"""Start times by model and node, from what agents reported."""

from __future__ import annotations

import pytest

from controlplane.fleet import services
from controlplane.fleet.models import Partition
from controlplane.fleet.starts import RECENT, start_s
from tests.factories import make_deployment, make_model, make_node, make_partition
from tests.fleet.reporting import status_of, tell

pytestmark = pytest.mark.django_db


def started(partition: Partition, *seconds: float) -> None:
    """Starts after one another, each of which took so long; then nothing runs there any more."""
    for one in seconds:
        for phase in ("starting", "ready", "stopping"):
            status = status_of(partition, phase, ready_after_s=one, deployment=partition.deployment.name)
            tell(partition.node, replicas=(status,))
        tell(partition.node)


def test_a_models_start_on_a_node_is_the_median_of_its_recent_ones_there() -> None:
    model, here, elsewhere = make_model(), make_node(), make_node()
    partition = make_partition(here, deployment=make_deployment(model=model), role="decode")
    started(partition, 500.0, *(10.0 + step for step in range(RECENT)))
    started(make_partition(here, deployment=make_deployment(), role="decode"), 90.0)  # another model
    started(make_partition(elsewhere, deployment=make_deployment(model=model), role="decode"), 40.0)

    assert start_s(model, here) == 12.0
    assert start_s(model, elsewhere) == 40.0


def test_what_was_never_measured_there_is_not_known() -> None:
    model, node = make_model(), make_node()
    assert start_s(model, node) is None
    started(make_partition(node, deployment=make_deployment(), role="decode"), 90.0)
    make_deployment(model=model)
    assert start_s(model, node) is None


def test_a_preview_of_an_engine_that_runs_nowhere_goes_by_how_long_its_model_took_on_that_node() -> None:
    model, node = make_model(), make_node(gpus=1)
    before = make_partition(node, deployment=make_deployment(model=model), role="decode")
    started(before, 3.5)

    preview = services.preview_assign(before.pk, deployment_id=make_deployment(model=model).pk, role="decode")

    assert preview["expected_s"] == 3.5
