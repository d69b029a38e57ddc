"""Measuring GPUs from a terminal."""

from __future__ import annotations

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import GpuQualification
from tests.cli.conftest import Terminal
from tests.factories import make_gpus, make_node
from tests.fleet.reporting import tell
from workers.qualification import Figures, Qualification, QualifyState

pytestmark = pytest.mark.django_db


def test_gpus_are_measured_listed_and_accepted_by_name(operator: Terminal) -> None:
    node = make_node("alpha")
    gpus = make_gpus(node, 2, kind="nvidia", name="NVIDIA L4")
    assert "alpha/gpu1 is to be measured" in operator.ok("qualify", "alpha/gpu1", "-m", "new")
    assert AuditEvent.objects.get(verb="qualify").reason == "new"
    assert "alpha/gpu1 is not to be measured now" in operator.ok("qualify", "alpha/gpu1", "--cancel")
    assert [row["gpu"] for row in operator.json("qualify", "alpha")["qualifications"]] == ["alpha/gpu0", "alpha/gpu1"]
    figures = (Figures(bf16_tflops=98.7, memory_gbs=250), Figures(bf16_tflops=30.1, memory_gbs=251))
    rows = GpuQualification.objects.filter(state="asked").order_by("pk")
    said = [
        Qualification(id=str(row.pk), gpu=gpu.uuid, state=QualifyState.DONE, figures=one)
        for row, gpu, one in zip(rows, gpus, figures, strict=True)
    ]
    tell(node, qualifications=tuple(said))
    shown = operator.ok("gpus", "--node", "alpha")
    assert "98.7" in shown and "is 25% of what is published (121)" in shown
    assert "Nothing was found against" in operator.fails(1, "qualify", "alpha/gpu0", "--accept", "-m", "x")
    assert operator.ok("qualify", "alpha/gpu1", "--accept", "-m", "drafts") == "alpha/gpu1 may be used as it is.\n"
    assert "accepted by" in operator.ok("gpus")
    assert "of what is published" in operator.ok("qualify", "alpha/gpu1", "--unaccept")


def test_what_is_mistyped_says_what_there_is(operator: Terminal) -> None:
    make_gpus(make_node("alpha"), 1, kind="nvidia")
    assert "Its GPUs: alpha/gpu0." in operator.fails(2, "qualify", "alpha/gpu7")
    assert "Write NODE/gpuN" in operator.fails(2, "qualify", "alpha", "--accept")
    assert "Choose one" in operator.fails(2, "qualify", "alpha/gpu0", "--accept", "--cancel")
