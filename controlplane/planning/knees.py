"""Has a deployment's engines take the smallest batch of prompts that fills the GPU, as a profile tells it: a larger one
makes prompts wait for one another and is no faster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.db import transaction
from django.db.models import QuerySet

from controlplane.audit.services import Actor
from controlplane.domain import engine_args
from controlplane.domain.problems import Problem
from controlplane.domain.profiles import ProfileError
from controlplane.fleet import owners
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.models import Deployment, Role
from controlplane.fleet.services import deployments
from controlplane.planning.models import EngineProfile
from controlplane.planning.profiles import profile_of, speed_of

FLAG, SEQUENCES = "--max-num-batched-tokens", "--max-num-seqs"


@dataclass(frozen=True, slots=True)
class Batch:
    """What applying a profile does, or did. `column`: the deployment's arguments that have it, of prefill engines
    where it has any of their own; `before`, `after`: all of them. `engines`: running ones, which start again."""

    deployment: Deployment
    column: str
    tokens: int
    before: list[str]
    after: list[str]
    engines: int
    notes: list[str]


def look(profile_id: int, deployment_id: int) -> Batch:
    """What applying it would do. Raises FleetError."""
    return _batch(profile_id, _found(Deployment.objects.all(), deployment_id))


@transaction.atomic
def apply(profile_id: int, deployment_id: int, *, actor: Actor, force: bool = False, reason: str = "") -> Batch:
    """By the same way as any change of a deployment. Where engines run it asks for `force`: they start again. Raises
    FleetError."""
    deployment = _found(Deployment.objects.select_for_update(of=("self",)), deployment_id)
    owners.require(actor, "deployment.change", deployment)
    batch = _batch(profile_id, deployment)
    why = f"profile {profile_id}: {batch.tokens} tokens a step"
    deployments.update_deployment(
        deployment_id,
        **{batch.column: batch.after},
        force=force,
        reason=f"{why}; {reason}"[:1000] if reason else why,
        actor=actor,
    )
    return batch


def _found(rows: QuerySet[Deployment], deployment_id: int) -> Deployment:
    found = rows.select_related("model").filter(pk=deployment_id).first()
    if found is None:
        raise NotFound("deployment", deployment_id)
    return found


def _batch(profile_id: int, deployment: Deployment) -> Batch:
    row = EngineProfile.objects.filter(pk=profile_id).first()
    if row is None:
        raise NotFound("profile", profile_id)
    if row.model != deployment.model.name:
        raise _other_model(row, deployment)
    column = _column(deployment)
    tokens, notes = _tokens(row, deployment, column)
    before = list(getattr(deployment, column))
    after = [*engine_args.without(before, FLAG), f"{FLAG}={tokens}"]
    if engine_args.int_value(before, FLAG) == tokens:
        after = before
    engines = deployments.replaced_by(deployment, {column} if after != before else set())
    return Batch(deployment, column, tokens, before, after, engines, [*notes, *_elsewhere(row, deployment, column)])


def _column(deployment: Deployment) -> str:
    """Engines that both prefill and decode, and those that change roles without a restart, have one batch."""
    apart = deployment.partitions.filter(role=Role.PREFILL).exists()
    told = engine_args.value_of(deployment.prefill_args, FLAG) is not None
    return "prefill_args" if not deployment.convertible and (apart or told) else "engine_args"


def _tokens(row: EngineProfile, deployment: Deployment, column: str) -> tuple[int, list[str]]:
    """The knee, and what is to be known of it; an engine takes no fewer tokens than sequences."""
    try:
        knee = speed_of(profile_of(row)).knee
    except ProfileError as error:
        fix = "Choose a profile that has a law, or measure an engine: forebay profile run."
        raise Refused([Problem("no-law", f"Profile {row.pk} makes no law: {error}.", fix)]) from error
    own = deployment.prefill_args if column == "prefill_args" else []
    sequences = engine_args.int_value([*deployment.engine_args, *own], SEQUENCES) or row.max_num_seqs or 1
    notes = [] if knee.measured else ["it is by the law: too few sizes were measured for more"]
    if sequences > knee.tokens:
        notes.append(f"{knee.tokens} would fill it, but an engine of {sequences} sequences takes no fewer tokens")
    return max(knee.tokens, sequences), notes


def _elsewhere(row: EngineProfile, deployment: Deployment, column: str) -> list[str]:
    """Of its engines, those on other GPUs than the profile is of."""
    found = deployment.partitions.prefetch_related("gpus").exclude(role="")
    if column == "prefill_args":
        found = found.filter(role=Role.PREFILL)
    kinds = Counter(
        (len(partition.gpus.all()), name) for partition in found for name in {gpu.name for gpu in partition.gpus.all()}
    )
    return [
        f"{count} of its engines {'has' if count == 1 else 'have'} {gpus} x {name}, of which this profile says nothing"
        for (gpus, name), count in sorted(kinds.items())
        if (gpus, name) != (row.tp, row.gpu)
    ]


def _other_model(row: EngineProfile, deployment: Deployment) -> Refused:
    message = f"Profile {row.pk} is of {row.model}; {deployment.name} serves {deployment.model.name}."
    return Refused([Problem("other-model", message, "Choose a profile of its model.")])
