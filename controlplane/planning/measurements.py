"""Asks for an engine to be measured, and keeps how that goes: the rows are wanted state, a process makes them so."""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.domain import engine_args
from controlplane.domain.problems import Problem
from controlplane.domain.profiles import Profile
from controlplane.domain.sweep import Room
from controlplane.fleet import owners, selectors
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.models import Deployment, Partition
from controlplane.gateway import summary
from controlplane.gateway.table import Engine
from controlplane.planning import load, profiles
from controlplane.planning.measuring import Asked, Progress
from controlplane.planning.models import ProfileRun

State = ProfileRun.State
BEAT_S = 1.0
SILENT = timedelta(seconds=60)
KEPT = 50  # runs, ended ones


@transaction.atomic
def ask(
    deployment_id: int, *, actor: Actor, partition_id: int | None = None, force: bool = False, reason: str = ""
) -> ProfileRun:
    """Have an engine of the deployment measured, by default the first that is ready. For minutes it is as busy as it
    can be: refused while the deployment serves requests, unless `force`."""
    deployment = Deployment.objects.select_related("model").filter(pk=deployment_id).first()
    if deployment is None:
        raise NotFound("deployment", deployment_id)
    owners.require(actor, "deployment.change", deployment)
    partition = _engine_of(deployment, partition_id)
    if not force:
        _require_quiet(deployment, partition)
    if ProfileRun.objects.filter(partition=partition, state__in=ProfileRun.OPEN).exists():
        raise _already(partition)
    try:
        with transaction.atomic():
            run = ProfileRun.objects.create(
                deployment=deployment, partition=partition, asked_by=actor.name[:150], reason=reason
            )
    except IntegrityError as error:  # somebody was faster
        raise _already(partition) from error
    record(actor, "measure-engine", deployment, after={"partition": str(partition)}, reason=reason)
    return run


@transaction.atomic
def cancel(run_id: int, *, actor: Actor, reason: str = "") -> ProfileRun:
    """Give it up, running or not; nothing where it has ended."""
    run = ProfileRun.objects.select_related("deployment").filter(pk=run_id).first()
    if run is None:
        raise NotFound("profile run", run_id)
    owners.require(actor, "deployment.change", run.deployment)
    ended = {"state": State.CANCELLED, "ended_at": timezone.now(), "message": ""}
    if ProfileRun.objects.filter(pk=run_id, state__in=ProfileRun.OPEN).update(**ended):
        record(actor, "cancel-measuring", run.deployment, reason=reason)
    run.refresh_from_db()
    return run


def wanted() -> int | None:
    """The run that is to be begun, if none is under way: engines share hosts and networks, so one after the other."""
    if ProfileRun.objects.filter(state=State.RUNNING).exists():
        return None
    return ProfileRun.objects.filter(state=State.WANTED).order_by("pk").values_list("pk", flat=True).first()


def give_up_silent() -> None:
    """Those whose process is gone; and what ended long ago is forgotten."""
    since = timezone.now() - SILENT
    silent = ProfileRun.objects.filter(state=State.RUNNING).filter(Q(beat_at__lt=since) | Q(beat_at=None))
    silent.update(state=State.FAILED, ended_at=timezone.now(), message="The process that measured it ended.")
    old = ProfileRun.objects.exclude(state__in=ProfileRun.OPEN).order_by("-pk").values_list("pk", flat=True)[KEPT:]
    ProfileRun.objects.filter(pk__in=list(old)).delete()


def begin(run_id: int) -> ProfileRun | None:
    """For the process that measures: None where another one has it, or nobody wants it any more."""
    if not ProfileRun.objects.filter(pk=run_id, state=State.WANTED).update(state=State.RUNNING, beat_at=timezone.now()):
        return None
    return ProfileRun.objects.select_related("deployment__model", "partition__node").get(pk=run_id)


def beat(run_id: int, progress: Progress) -> bool:
    """How far it is; whether it is still wanted."""
    told = {"done": progress.done, "steps": progress.steps, "message": progress.message[:400]}
    running = ProfileRun.objects.filter(pk=run_id, state=State.RUNNING)
    return bool(running.update(beat_at=timezone.now(), **told))


@transaction.atomic
def finish(run_id: int, profile: Profile, notes: list[str]) -> bool:
    """Keep what was measured, unless it was called off meanwhile."""
    run = ProfileRun.objects.select_for_update().select_related("partition__node").filter(pk=run_id).first()
    if run is None or run.state != State.RUNNING:
        return False
    actor = Actor.system(run.asked_by)
    row = profiles.save(profile, origin=str(run.partition), notes=notes, actor=actor)
    run.state, run.ended_at, run.profile, run.message = State.DONE, timezone.now(), row, ""
    run.done = run.steps
    run.save(update_fields=["state", "ended_at", "profile", "message", "done"])
    record(actor, "measured-engine", row, after={"points": len(row.prefill) + len(row.decode)}, reason=run.reason)
    return True


def fail(run_id: int, why: str) -> None:
    ProfileRun.objects.filter(pk=run_id, state=State.RUNNING).update(
        state=State.FAILED, ended_at=timezone.now(), message=why[:400]
    )


def asked_of(run: ProfileRun) -> Asked | None:
    """What the engine is, and where; None where it is not ready any more."""
    row = next((row for row in selectors.routing_rows(timezone.now()) if row.partition == run.partition_id), None)
    engine = row and Engine.at(row.partition, row.name, row.endpoint, row.engine_key)
    if not row or not engine:
        return None
    partition, deployment = run.partition, run.deployment
    gpus = list(partition.gpus.order_by("index"))
    args = [*deployment.engine_args, *_args_of(deployment, partition.role)]
    room = Room(
        context=0,
        budget=engine_args.int_value(args, "--max-num-batched-tokens"),
        sequences=engine_args.int_value(args, "--max-num-seqs"),
    )
    gpu = gpus[0].name if gpus else ""
    return Asked(
        engine, deployment.name, deployment.model.name, gpu, max(1, len(gpus)), partition.engine_version, tuple(args),
        room,
    )  # fmt: skip


def _args_of(deployment: Deployment, role: str) -> list[str]:
    return {"prefill": deployment.prefill_args, "decode": deployment.decode_args}.get(role, [])


def _engine_of(deployment: Deployment, partition_id: int | None) -> Partition:
    ready = {row.partition for row in selectors.routing_rows(timezone.now()) if row.deployment == deployment.name}
    mine = deployment.partitions.select_related("node").exclude(node__simulated=True).order_by("role", "pk")
    if partition_id is not None:
        mine = mine.filter(pk=partition_id)
    found = next((partition for partition in mine if partition.pk in ready), None)
    if found is None:
        message = f"{deployment.name} has no such engine that is ready." if partition_id else (
            f"{deployment.name} has no engine that is ready."
        )  # fmt: skip
        fix = "Assign a partition to it, one of its own for measuring if it serves, and wait until it is ready."
        raise Refused([Problem("no-engine", message, fix)])
    return found


def _require_quiet(deployment: Deployment, partition: Partition) -> None:
    """By the gateway's records of the last minute and by what the engine says of itself."""
    served = summary.by_deployment().get(deployment.name)
    engine = load.live().partitions.get(partition.pk)
    busy = (engine.running or 0) + (engine.waiting or 0) if engine else 0
    if not busy and (served is None or not served.rps):
        return
    rate = f"{served.rps:.2g} requests a second" if served and served.rps else f"{busy:.0f} requests in flight"
    message = f"{deployment.name} serves: {rate}. Measuring would slow it for minutes, and requests would falsify it."
    fix = "Measure it while nothing is asked of it, or a deployment of its own with the same arguments; or force it."
    raise Refused([Problem("serving", message, fix, forceable=True)])


def _already(partition: Partition) -> Refused:
    message = f"{partition} is being measured, or shall be."
    return Refused([Problem("measuring", message, "Wait until it is done, or cancel it.")])
