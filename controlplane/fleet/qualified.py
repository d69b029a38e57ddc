"""Takes what agents say of measurements, and judges GPUs by them: the only writer of Gpu.flag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import Max, QuerySet

from controlplane.audit.services import Actor, record
from controlplane.domain.published import published
from controlplane.domain.qualification import Bars, Compared, compare, judge
from controlplane.fleet import observed
from controlplane.fleet.models import Gpu, GpuQualification, Node
from workers.contract import DeviceKind, NodeReport
from workers.qualification import Figures, Qualification, QualifyState, QualifyWanted

MOST_SIBLINGS = 64  # the median of so many is that of all
KEPT = 20  # measurements of one GPU, the newest ones
MEASURED = (DeviceKind.NVIDIA.value, DeviceKind.MIG.value)
State = GpuQualification.State


@dataclass(frozen=True, slots=True)
class Rates:
    """What a GPU was last measured to do: the two slopes of its roofline. None: not measured."""

    bf16_tflops: float | None
    memory_gbs: float | None


def measured_rates(gpu: Gpu) -> Rates | None:
    """None where it was never measured."""
    row = newest([gpu]).get(gpu.pk)
    if row is None:
        return None
    figures = figures_of(row)
    return Rates(figures.bf16_tflops, figures.memory_gbs)


def wanted(node: Node) -> tuple[QualifyWanted, ...]:
    """What the node's spec shall ask for: none of what has ended."""
    if node.revoked:
        return ()
    rows = GpuQualification.objects.filter(gpu__node=node, state__in=GpuQualification.OPEN).order_by("pk")
    return tuple(
        QualifyWanted(id=str(pk), gpu=uuid, soak_s=soak_s)
        for pk, uuid, soak_s in rows.values_list("pk", "gpu__uuid", "soak_s")
    )


def take(node: Node, report: NodeReport, now: datetime) -> bool:
    """With the node locked: what its agent says of measurements, and a first one of GPUs that are new. Whether the spec
    has to say something else now."""
    ended = [said for said in report.qualifications if _take(node, said, now)]
    return _ask_of_new(node, report) or bool(ended)


def newest(gpus: Iterable[Gpu] | QuerySet[Gpu]) -> dict[int, GpuQualification]:
    """By GPU, the last measurement that is done: what is known of it."""
    return _last(GpuQualification.objects.filter(gpu__in=gpus, state=State.DONE))


def last(gpus: Iterable[Gpu] | QuerySet[Gpu]) -> dict[int, GpuQualification]:
    """By GPU, the last one asked for, whatever became of it."""
    return _last(GpuQualification.objects.filter(gpu__in=gpus))


def figures_of(row: GpuQualification) -> Figures:
    return result_of(row).figures or Figures()


def result_of(row: GpuQualification) -> Qualification:
    return msgspec.convert(row.result, Qualification)


def siblings_of(gpu: Gpu) -> list[Figures]:
    """What was last measured of other GPUs of the same name."""
    return [figures for pk, figures in figures_by_gpu(gpu.kind, gpu.name).items() if pk != gpu.pk]


def figures_by_gpu(kind: str, name: str) -> dict[int, Figures]:
    """The newest of GPUs of this name, of those measured last where they are many."""
    done = GpuQualification.objects.filter(gpu__kind=kind, gpu__name=name, state=State.DONE)
    ids = done.order_by().values("gpu").annotate(newest=Max("pk")).order_by("-newest").values_list("newest", flat=True)
    return {row.gpu_id: figures_of(row) for row in GpuQualification.objects.filter(pk__in=list(ids[:MOST_SIBLINGS]))}


def compared(row: GpuQualification) -> list[Compared]:
    """Its figures beside those published and those of its siblings, as they are now."""
    return compare(figures_of(row), siblings_of(row.gpu), published(row.gpu.name))


def weigh(row: GpuQualification) -> bool:
    """Judge a GPU by its newest result, with its node locked; whether the flag changed."""
    gpu, result = row.gpu, result_of(row)
    found = judge(
        result.figures or Figures(),
        kind=gpu.kind,
        siblings=siblings_of(gpu),
        known=published(gpu.name),
        ecc_errors=result.ecc_errors,
        bars=Bars(settings.QUALIFY_SIBLINGS, settings.QUALIFY_PUBLISHED, settings.QUALIFY_DRIFT),
    )
    findings = [asdict(finding) for finding in found]
    if findings != row.findings:
        row.findings = findings
        row.save(update_fields=["findings"])
    return raise_flag(row)


def weigh_again(since: datetime) -> None:
    """Siblings of GPUs that were measured since then: what is found of them may be another thing now."""
    lately = GpuQualification.objects.filter(state=State.DONE, ended_at__gte=since)
    for kind, name in lately.order_by().values_list("gpu__kind", "gpu__name").distinct():
        for row in newest(Gpu.objects.filter(kind=kind, name=name, present=True)).values():
            _weigh_again(row)


def raise_flag(row: GpuQualification) -> bool:
    """Gpu.flag as the newest result has it: what was found, unless somebody accepted that. Whether it changed."""
    flag = "" if row.accepted_by else "; ".join(finding["message"] for finding in row.findings)[:255]
    return bool(Gpu.objects.filter(pk=row.gpu_id).exclude(flag=flag).update(flag=flag))


def _take(node: Node, said: Qualification, now: datetime) -> bool:
    """One that has ended is never written again: an agent may repeat itself."""
    rows = GpuQualification.objects.select_related("gpu")
    row = rows.filter(pk=said.id, gpu__node=node, gpu__uuid=said.gpu).first() if said.id.isdecimal() else None
    if row is None or not row.is_open:
        return False
    row.gpu.node = node
    row.state, row.message = said.state.value, observed.clean(said.message, 256)
    columns = ["state", "message"]
    ended = said.state in (QualifyState.DONE, QualifyState.FAILED)
    if ended:
        row.ended_at, row.driver = now, node.driver
        row.result = _plain(said) if said.state is QualifyState.DONE else None
        columns += ["ended_at", "driver", "result"]
    row.save(update_fields=columns)
    if ended:
        _ended(row)
    return ended


def _plain(value: Any) -> Any:
    """As JSON that PostgreSQL takes, which is without NUL."""
    match msgspec.to_builtins(value):
        case str() as text:
            return text.replace("\x00", "")
        case dict() as fields:
            return {key: _plain(field) for key, field in fields.items()}
        case list() | tuple() as items:
            return [_plain(item) for item in items]
        case other:
            return other


@transaction.atomic
def _weigh_again(row: GpuQualification) -> None:
    Node.objects.select_for_update().get(pk=row.gpu.node_id)
    current = newest([row.gpu]).get(row.gpu_id)
    if current is not None and weigh(current):
        _tell(current, Actor.system("qualification"), "unflag-gpu", "flag-gpu")


def _ended(row: GpuQualification) -> None:
    actor = Actor.agent(row.gpu.node.name)
    _prune(row.gpu)
    if row.state == State.FAILED:
        record(actor, "gpu-not-measured", row.gpu, detail=row.message)
        return
    weigh(row)
    _tell(row, actor, "gpu-qualified", "gpu-below-bar")


def _prune(gpu: Gpu) -> None:
    """The oldest ones, though never the newest that is done: it says what is known of the GPU."""
    known = [row.pk for row in newest([gpu]).values()]
    recent = list(gpu.qualifications.values_list("pk", flat=True)[:KEPT])
    gpu.qualifications.exclude(pk__in=[*known, *recent]).delete()


def _tell(row: GpuQualification, actor: Actor, fit: str, unfit: str) -> None:
    """The audit trail, of what the newest result says of the GPU."""
    found = figures_of(row)
    facts = {"bf16_tflops": found.bf16_tflops, "memory_gbs": found.memory_gbs}
    detail = "\n".join(finding["message"] for finding in row.findings)
    record(actor, unfit if row.findings else fit, row.gpu, after=facts, detail=detail)


def _ask_of_new(node: Node, report: NodeReport) -> bool:
    """What was never measured is, before it is first assigned."""
    kinds = () if report.simulated else automatic_kinds()
    if not any(device.kind in kinds for device in report.devices):
        return False
    new = unassigned(Gpu.objects.filter(node=node, kind__in=kinds, qualifications=None))
    return bool(ask(new, GpuQualification.Cause.JOIN, Actor.system("qualification")))


def automatic_kinds() -> Sequence[str]:
    """Kinds of devices that are measured without being asked for."""
    return {"never": (), "gpus": MEASURED, "all": (*MEASURED, DeviceKind.CPU.value)}[settings.QUALIFY]


def unassigned(gpus: QuerySet[Gpu]) -> QuerySet[Gpu]:
    """Those that nothing is to run on and nothing runs on."""
    busy = gpus.exclude(partition=None).exclude(partition__deployment=None, partition__phase__in=("", "exited"))
    return gpus.filter(present=True).exclude(pk__in=busy.values("pk"))


def ask(gpus: Iterable[Gpu], cause: str, actor: Actor) -> list[GpuQualification]:
    """With their nodes locked. A GPU that is to be measured already keeps that one."""
    chosen = list(gpus)
    going = {
        row.gpu_id: row for row in GpuQualification.objects.filter(gpu__in=chosen, state__in=GpuQualification.OPEN)
    }
    for gpu in chosen:
        if gpu.pk not in going:
            soak_s = settings.QUALIFY_SOAK_CPU_S if gpu.kind == DeviceKind.CPU else settings.QUALIFY_SOAK_S
            going[gpu.pk] = GpuQualification.objects.create(
                gpu=gpu, cause=cause, asked_by=actor.name[:150], soak_s=soak_s
            )
    return list(going.values())


def _last(rows: QuerySet[GpuQualification]) -> dict[int, GpuQualification]:
    ids = rows.order_by().values("gpu").annotate(last=Max("pk")).values("last")
    return {row.gpu_id: row for row in GpuQualification.objects.filter(pk__in=ids).select_related("gpu__node")}
