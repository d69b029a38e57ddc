"""Measuring GPUs over REST."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from controlplane.fleet import services
from controlplane.fleet.models import GpuQualification
from controlplane.fleet.qualified import KEPT
from tests.api.conftest import problem_of
from tests.factories import make_gpus, make_node, make_partition
from tests.fleet.reporting import tell
from workers.qualification import Figures, Qualification, QualifyState, Soak

pytestmark = pytest.mark.django_db
SOAK = Soak(seconds=30, drift=0.01, checks=60, mismatches=2)


def test_a_gpu_is_measured_found_wanting_and_accepted(as_role: Callable[[str], APIClient]) -> None:
    node, client = make_node("alpha"), as_role("operator")
    [gpu, busy] = make_gpus(node, 2, kind="nvidia", name="NVIDIA H100 80GB HBM3")
    make_partition(node, gpus=[busy], role="decode")
    address = f"/api/v1/gpus/{gpu.pk}"
    assert client.get(address).json()["qualification"] is None
    wanted = client.post(f"{address}/qualify", {"reason": "new"}, format="json")
    assert wanted.status_code == 202 and wanted.json()["state"] == "asked" and wanted.json()["cause"] == "demand"
    [same] = client.post(f"/api/v1/nodes/{node.pk}/qualify").json()["qualifications"]
    assert same["id"] == wanted.json()["id"]
    refused = client.post(f"/api/v1/gpus/{busy.pk}/qualify")
    assert problem_of(refused, 409)["problems"][0]["code"] == "gpu-assigned"

    figures = Figures(bf16_tflops=650.5, memory_gbs=2900, soak=SOAK)
    said = Qualification(
        id=str(wanted.json()["id"]), gpu=gpu.uuid, state=QualifyState.DONE, figures=figures, temperature_c=70
    )
    tell(node, qualifications=(said,), driver="NVML 580")
    shown = client.get(address).json()
    assert "2 of 60 times" in shown["flag"] and shown["qualification"]["bf16_tflops"] == 650.5
    [row] = client.get(f"{address}/qualifications").json()
    assert row["figures"]["soak"]["mismatches"] == 2 and row["temperature_c"] == 70 and row["driver"] == "NVML 580"
    assert [finding["code"] for finding in row["findings"]] == ["corrupt-results"]

    assert client.post(f"{address}/accept", {}, format="json").status_code == 400, "a reason must be given"
    accepted = client.post(f"{address}/accept", {"reason": "for tests alone"}, format="json").json()
    assert accepted["flag"] == "" and accepted["qualification"]["accepted_by"]
    assert "2 of 60" in client.post(f"{address}/unaccept").json()["flag"]
    assert client.post(f"{address}/qualify").status_code == 202
    assert client.post(f"{address}/cancel_qualification").json()["flag"] == shown["flag"]


def test_old_measurements_go_but_never_the_one_that_counts(as_role: Callable[[str], APIClient], actor) -> None:
    node = make_node()
    [gpu] = make_gpus(node, 1, kind="nvidia")
    for number in range(KEPT + 3):
        row = services.qualify_gpu(gpu.pk, actor=actor)
        state = QualifyState.DONE if number == 0 else QualifyState.FAILED
        figures = Figures(memory_gbs=2000) if number == 0 else None
        tell(node, qualifications=(Qualification(id=str(row.pk), gpu=gpu.uuid, state=state, figures=figures),))
    assert GpuQualification.objects.count() == KEPT + 1
    assert as_role("viewer").get(f"/api/v1/gpus/{gpu.pk}").json()["qualification"]["memory_gbs"] == 2000
