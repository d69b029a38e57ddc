"""Measuring GPUs: when it is asked for, what its results mean for placement, and what people may decide about it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import qualified, services
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.models import Gpu, GpuQualification, Node, Partition
from controlplane.fleet.publish import spec_of
from tests.factories import make_deployment, make_gpus, make_node, make_partition, make_ready
from tests.fleet.reporting import settle, status_of, tell
from workers.qualification import Figures, Qualification, QualifyState

pytestmark = pytest.mark.django_db
State = GpuQualification.State


def make_h100s(count: int, **columns: Any) -> tuple[Node, list[Gpu]]:
    node = make_node(**columns)
    return node, make_gpus(node, count, kind="nvidia", name="NVIDIA H100 80GB HBM3")


def measured(row: GpuQualification, bf16: float = 700.0, **more: Any) -> Qualification:
    figures = Figures(torch="2.9.0+cu129", bf16_tflops=bf16, memory_gbs=2900.0)
    defaults = {
        "id": str(row.pk),
        "gpu": row.gpu.uuid,
        "state": QualifyState.DONE,
        "figures": figures,
        "temperature_c": 64.0,
    }
    return Qualification(**(defaults | more))


def open_rows(node: Node) -> list[GpuQualification]:
    return list(GpuQualification.objects.filter(gpu__node=node, state__in=GpuQualification.OPEN).order_by("pk"))


def measure(node: Node, *rates: float, **fields: Any) -> None:
    """All GPUs that are to be measured come to these rates, the last one for the rest."""
    rows = open_rows(node)
    rates = (*rates, *[rates[-1]] * len(rows))
    tell(node, qualifications=tuple(measured(row, rate) for row, rate in zip(rows, rates, strict=False)), **fields)


def flags(node: Node) -> list[str]:
    return list(node.gpus.order_by("index").values_list("flag", flat=True))


def wanted(node: Node) -> list[str]:
    node.refresh_from_db()
    return [one.gpu for one in spec_of(node).qualify]


def test_new_gpus_are_measured_once_and_the_spec_asks_until_the_result_is_there(settings):
    node, gpus = make_h100s(2)
    partition = make_ready(make_partition(node, gpus=[], role="decode"))
    running = (status_of(partition, "ready"),)
    settle(node, timezone.now(), replicas=running)
    assert wanted(node) == [gpu.uuid for gpu in gpus]
    confirmed = Partition.objects.get(pk=partition.pk).generation
    rows = open_rows(node)
    waits = measured(rows[1], state=QualifyState.WAITING, message="another one first", figures=None)
    reply = tell(node, replicas=running, qualifications=(measured(rows[0]), waits))
    assert [one.gpu for one in reply.spec.qualify] == [gpus[1].uuid]
    done, waiting = (GpuQualification.objects.get(pk=row.pk) for row in rows)
    assert done.state == State.DONE and done.result["figures"]["bf16_tflops"] == 700.0 and done.ended_at
    assert waiting.state == State.WAITING and waiting.message == "another one first"
    again = tell(
        node, replicas=running, qualifications=(measured(rows[0], 1.0), waits), generation=reply.spec.generation
    )
    assert again.spec is None and GpuQualification.objects.get(pk=done.pk).result == done.result
    measure(node, 705, replicas=running)
    settle(node, timezone.now(), replicas=running)
    assert wanted(node) == [] and flags(node) == ["", ""] and GpuQualification.objects.count() == 2
    assert Partition.objects.get(pk=partition.pk).generation == confirmed, "an engine has nothing to confirm"
    assert AuditEvent.objects.filter(verb="gpu-qualified", source="agent").count() == 2
    assert qualified.measured_rates(gpus[0]) == qualified.Rates(bf16_tflops=700.0, memory_gbs=2900.0)


def test_a_gpu_below_its_siblings_is_kept_out_of_placement_until_somebody_accepts_it(actor: Actor):
    node, _ = make_h100s(4)
    tell(node)
    measure(node, 700, 710, 690, 500)
    assert flags(node)[:3] == ["", "", ""] and "71% of the median of 3 others" in flags(node)[3]
    slow = node.gpus.get(index=3)
    partition, deployment = make_partition(node, gpus=[slow]), make_deployment()
    order = {"deployment_id": deployment.pk, "role": "decode", "actor": actor, "force": True}
    with pytest.raises(Refused) as refused:
        services.assign(partition.pk, **order)
    [problem] = refused.value.problems
    assert problem.code == "gpu-below-bar" and "accept it" in problem.fix and "71%" in problem.message

    services.accept_gpu(slow.pk, actor=actor, reason="good enough for drafts")
    assert flags(node)[3] == ""
    services.assign(partition.pk, **order)
    services.unaccept_gpu(slow.pk, actor=actor)
    assert "71%" in flags(node)[3]
    assert services.assign(partition.pk, **(order | {"role": "aggregated"})).role == "aggregated", (
        "it stays, and may flip"
    )
    verbs = AuditEvent.objects.filter(subject_type="gpu", subject_id=slow.pk).order_by("pk")
    assert [(event.verb, event.reason) for event in verbs] == [
        ("gpu-below-bar", ""), ("accept-gpu", "good enough for drafts"), ("unaccept-gpu", ""),
    ]  # fmt: skip
    with pytest.raises(Refused, match="Nothing was found"):
        services.accept_gpu(node.gpus.get(index=0).pk, actor=actor, reason="?")


def test_an_acceptance_ends_with_the_next_measurement_and_a_failed_one_changes_nothing(actor: Actor):
    node, [gpu] = make_h100s(1)
    tell(node)
    measure(node, 300)
    assert "of what is published" in flags(node)[0]
    services.accept_gpu(gpu.pk, actor=actor, reason="x")
    services.qualify_gpu(gpu.pk, actor=actor)
    [row] = open_rows(node)
    tell(node, qualifications=(measured(row, state=QualifyState.FAILED, message="no torch", figures=None),))
    assert flags(node) == [""] and GpuQualification.objects.get(pk=row.pk).message == "no torch"
    services.qualify_gpu(gpu.pk, actor=actor)
    measure(node, 301)
    assert "30%" in flags(node)[0]
    services.qualify_gpu(gpu.pk, actor=actor)
    measure(node, 700)
    assert flags(node) == [""]


def test_asking_again_changes_nothing_and_what_cannot_be_measured_is_refused(actor: Actor):
    node, gpus = make_h100s(2)
    make_partition(node, gpus=[gpus[1]], role="decode", name="busy")
    tell(node)
    assert wanted(node) == [gpus[0].uuid], "the other one is assigned"
    before = node.generation
    assert services.qualify_gpu(gpus[0].pk, actor=actor) == services.qualify_node(node.pk, actor=actor)[0]
    node.refresh_from_db()
    assert node.generation == before and not AuditEvent.objects.filter(verb="qualify").exists()
    with pytest.raises(Refused, match=r"serves .* in busy"):
        services.qualify_gpu(gpus[1].pk, actor=actor)
    services.withdraw_qualification(gpus[0].pk, actor=actor)
    assert wanted(node) == [] and services.withdraw_qualification(gpus[0].pk, actor=actor)
    services.qualify_node(node.pk, actor=actor, reason="new fan")
    assert wanted(node) == [gpus[0].uuid]
    assert AuditEvent.objects.get(verb="qualify").reason == "new fan"
    feigned, _ = make_h100s(1, simulated=True)
    tell(feigned, simulated=True)
    for simulated in (make_node(gpus=1), feigned):
        assert open_rows(simulated) == [] and services.qualify_due() == 0
        with pytest.raises(Refused, match="simulated"):
            services.qualify_node(simulated.pk, actor=actor)
    with pytest.raises(NotFound):
        services.qualify_gpu(0, actor=actor)


def test_the_schedule_measures_what_is_free_and_was_not_looked_at_for_a_week(settings):
    node, gpus = make_h100s(3)
    tell(node)
    measure(node, 700)
    assert services.qualify_due() == 0
    long_ago = timezone.now() - timedelta(hours=settings.QUALIFY_EVERY_H + 1)
    GpuQualification.objects.update(ended_at=long_ago)
    make_partition(node, gpus=[gpus[0]], role="decode")
    Node.objects.filter(pk=make_h100s(1, heard=False)[0].pk).update(last_seen=long_ago)
    settings.QUALIFY_EVERY_H = 0
    assert services.qualify_due() == 0
    settings.QUALIFY_EVERY_H, settings.QUALIFY = 168, "never"
    assert services.qualify_due() == 0
    settings.QUALIFY = "gpus"
    assert services.qualify_due() == 2 and wanted(node) == [gpus[1].uuid, gpus[2].uuid]
    assert services.qualify_due() == 0
    assert {row.cause for row in open_rows(node)} == {"schedule"}


def test_cpu_slots_are_measured_on_demand_alone_unless_the_settings_say_all(settings, actor: Actor):
    node = make_node()
    [slot] = make_gpus(node, 1, kind="cpu", name="EPYC, 2 of 2 cores")
    tell(node)
    assert wanted(node) == []
    services.qualify_gpu(slot.pk, actor=actor)
    [row] = open_rows(node)
    assert row.soak_s == settings.QUALIFY_SOAK_CPU_S
    measure(node, 0.001)
    assert flags(node) == [""]
    settings.QUALIFY = "all"
    make_gpus(node, 1, kind="cpu", name="EPYC, 2 of 2 cores")
    tell(node)
    assert len(wanted(node)) == 1


def test_siblings_measured_later_tell_that_an_earlier_one_was_slow():
    node, _ = make_h100s(3)
    tell(node)
    rows = open_rows(node)
    for row, rate in zip(rows, (600, 990, 985), strict=True):
        tell(node, qualifications=(measured(row, rate),))
    assert flags(node) == ["", "", ""]
    services.qualify_due()
    assert "61% of the median of 2 others" in flags(node)[0] and flags(node)[1:] == ["", ""]
    services.qualify_due()
    assert AuditEvent.objects.filter(verb="flag-gpu", source="system").count() == 1


def test_what_no_row_asks_for_is_passed_over(actor: Actor):
    node, [gpu] = make_h100s(1)
    other, _ = make_h100s(1)
    tell(node)
    tell(other)
    [row], [foreign] = open_rows(node), open_rows(other)
    said = [measured(foreign), measured(row, id="9" * 200), measured(row, id="x"), measured(row, gpu="GPU-else")]
    tell(node, qualifications=tuple(said))
    assert open_rows(node) == [row] and open_rows(other) == [foreign]
    text = Figures(torch="2\x00", bf16_tflops=700.0, missing=("\x00 \\u0000",))
    tell(node, qualifications=(measured(row, figures=text, throttle="\x00"),))
    kept = GpuQualification.objects.get(pk=row.pk)
    assert kept.result["figures"]["missing"] == [" \\u0000"] and kept.state == State.DONE
    assert qualified.measured_rates(gpu) == qualified.Rates(bf16_tflops=700.0, memory_gbs=None)
