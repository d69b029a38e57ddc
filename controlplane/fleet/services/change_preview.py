"""What moves would do, changing nothing: the plan that people see before a change, and that is kept with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from controlplane.audit.services import Actor
from controlplane.domain import impact, placement, recycling, rollout
from controlplane.domain.impact import Action, Live, Load, Served
from controlplane.domain.rollout import Cost, Move, Step
from controlplane.domain.types import Problem, Role
from controlplane.fleet import owners, versions
from controlplane.fleet.facts import deployment_view, partition_view
from controlplane.fleet.models import Change, Deployment, Partition
from controlplane.fleet.services import change_pool, checks, scenes
from controlplane.fleet.services.scenes import Scene

RECYCLE = "recycle"  # the engine starts again, with the same content
_DOES = {
    Action.START: "Start an engine for {after} on {name}.",
    Action.RELABEL: "Turn {name} from {before} to {after}: its engine stays.",
    Action.REPLACE: "Drain {name} ({before}), stop its engine, start one for {after}.",
    Action.STOP: "Drain {name} ({before}) and stop its engine.",
}


@dataclass(slots=True)
class Outlook:
    """One move looked at."""

    move: Move
    partition: Partition
    deployment: Deployment | None
    action: Action
    load: Load
    likely_s: float | None
    most_s: float | None
    problems: list[Problem] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.partition)


def preview_change(
    moves: Sequence[Move], *, actor: Actor | None = None, live: Live | None = None, undoes: int | None = None
) -> dict[str, Any]:
    """What it would do if `actor` applied it; see docs/architecture.md for its parts. Raises FleetError where the moves
    make no sense at all. `undoes`: slots of the pool that this change set aside or took out go back with it."""
    version = versions.current()  # before the rows: then it is never newer than they are
    undone = Change.objects.filter(pk=undoes).first() if undoes is not None else None
    slots = change_pool.inverse(undone)
    plan = look(scenes.read(moves, may_be_empty=bool(slots)), moves, version=version, live=live or Live())
    plan["warnings"] += change_pool.told(slots)
    return refused_to(actor, plan, owners.of_moves(moves))


def refused_to(actor: Actor | None, plan: dict[str, Any], kept: Iterable[owners.Kept]) -> dict[str, Any]:
    """The preview with what stands against it because of who asks; that nothing overrides."""
    found = owners.problems(actor, "partition.assign", kept)
    if not found:
        return plan
    return {**plan, "problems": [*(problem.to_dict() for problem in found), *plan["problems"]], "forceable": False}


def look(
    scene: Scene, moves: Sequence[Move], *, version: int, live: Live, leaving: int | None = None
) -> dict[str, Any]:
    """The preview of moves on rows that are read already. `leaving`: a node that is drained afterwards."""
    before = scene.places()
    after = scene.without(leaving, rollout.after(before, moves))
    looked = [_outlook(scene, move, moves, live) for move in moves]
    about = scene.objectives()
    effects = impact.effects(before, after, scene.gpus(), live, about)
    quick = {one.move.partition for one in looked if one.action is Action.RELABEL}
    taken, blocked = rollout.steps(before, moves, quick=quick)
    way, mild = impact.way_problems(taken, blocked, before, about)
    end = impact.end_problems(before, after, about)
    whole = [*end, *(way if not end else []), *impact.over_maximum(effects, about)]
    problems = [*(problem for one in looked for problem in one.problems), *whole]
    warnings = [*impact.warnings(effects, about), *mild]
    by_partition = {one.move.partition: one for one in looked}
    recycles = _recycles(scene, looked)
    rows = [_step(number, step, by_partition) for number, step in enumerate(taken, 1)]
    rows += [_recycling(number, row, scene) for number, row in enumerate(recycles, len(rows) + 1)]
    spans = [row["expected_s"] for row in rows]
    return {
        "version": version,
        "moves": [_move(one) for one in looked],
        "steps": rows,
        "effects": [_effect(effect, scene) for effect in effects],
        "deployments": [_deployment(row, live) for row in scene.deployments.values()],
        "recycles": recycles,
        "problems": [problem.to_dict() for problem in problems],
        "forceable": bool(problems) and all(problem.forceable for problem in problems),
        "warnings": [problem.to_dict() for problem in warnings],
        "expected_s": None if None in spans else round(sum(span for span in spans if span is not None), 1),
    }


def _outlook(scene: Scene, move: Move, moves: Sequence[Move], live: Live) -> Outlook:
    partition = scene.partitions[move.partition]
    deployment = scene.deployments[move.deployment] if move.deployment is not None else None
    action = checks.action(partition, deployment, move.role.value if move.role else "")
    load = live.partitions.get(partition.pk, Load())
    likely, most = impact.expected_s(
        action,
        Role(partition.role) if partition.role else None,
        in_flight=load.in_flight,
        drain_s=partition.deployment.drain_s if partition.deployment else 0.0,
        lease_s=settings.KV_LEASE_S,
        start_s=checks.usual_start_s(deployment, partition.node) if deployment else None,
    )
    outlook = Outlook(move, partition, deployment, action, load, likely, most)
    if deployment is not None and move.role is not None and action is not Action.NONE:
        outlook.problems = checks.obstacles(partition, deployment, move.role, scene.peers(move, moves))
    return outlook


def _move(one: Outlook) -> dict[str, Any]:
    row = one.partition
    fits = one.deployment is not None and one.move.role is not None
    fit = placement.memory_fit(partition_view(row), deployment_view(one.deployment), one.move.role) if fits else None
    return {
        "partition": {"id": row.pk, "name": one.name},
        "node": {"id": row.node_id, "name": row.node.name},
        "gpus": len(row.gpus.all()),
        "before": _assigned(row.deployment, row.role),
        "after": _assigned(one.deployment, one.move.role.value if one.move.role else ""),
        "action": one.action.value,
        "in_flight": one.load.in_flight,
        "waiting": one.load.waiting,
        "expected_s": one.likely_s,
        "at_most_s": one.most_s,
        "problems": [problem.to_dict() for problem in one.problems],
        "warnings": [],
        "fit": fit.to_dict() if fit else None,
    }


def _assigned(deployment: Deployment | None, role: str) -> dict[str, Any]:
    return {"deployment": {"id": deployment.pk, "name": deployment.name} if deployment else None, "role": role or None}


def _step(number: int, step: Step, looked: Mapping[int, Outlook]) -> dict[str, Any]:
    one = looked[step.move.partition]
    before, after = (
        f"{place['deployment']['name']} {place['role']}" if place["deployment"] else "nothing"
        for place in (_move(one)["before"], _move(one)["after"])
    )
    text = _DOES.get(one.action, "{name} is as wanted.").format(name=one.name, before=before, after=after)
    if step.cost is Cost.ROLE_GAP:
        text += " Until a later step no other engine has its role."
    return {
        "number": number,
        "partition": step.move.partition,
        "name": one.name,
        "action": one.action.value,
        "text": text,
        "expected_s": one.likely_s,
    }


def _recycling(number: int, row: dict[str, Any], scene: Scene) -> dict[str, Any]:
    partition = scene.partitions[row["partition"]["id"]]
    return {
        "number": number,
        "partition": partition.pk,
        "name": str(partition),
        "action": RECYCLE,
        "text": row["text"],
        "expected_s": checks.usual_start_s(partition.deployment, partition.node),
    }


def _effect(effect: impact.Effect, scene: Scene) -> dict[str, Any]:
    key, role = effect.lane
    row = scene.deployments[key]
    return {
        "deployment": {"id": key, "name": row.name},
        "role": role.value,
        "engines_before": effect.engines_before,
        "engines_after": effect.engines_after,
        "gpus_before": effect.gpus_before,
        "gpus_after": effect.gpus_after,
        "in_flight": effect.in_flight,
        "per_engine_before": effect.per_engine_before,
        "per_engine_after": effect.per_engine_after,
        "min": getattr(row, f"min_{role.value}"),
        "max": getattr(row, f"max_{role.value}"),
        "text": effect.text,
    }


def _deployment(row: Deployment, live: Live) -> dict[str, Any]:
    served = live.deployments.get(row.pk, Served())
    return {
        "id": row.pk,
        "name": row.name,
        "rps": served.rps,
        "ttft_p95_ms": served.ttft_p95_ms,
        "itl_p95_ms": served.itl_p95_ms,
        "slo_ttft_ms": row.slo_ttft_ms,
        "slo_itl_ms": row.slo_itl_ms,
    }


def _recycles(scene: Scene, looked: Sequence[Outlook]) -> list[dict[str, Any]]:
    """Decode engines that must start again because a prefill engine that they pulled from goes."""
    moved = {one.move.partition for one in looked}
    stay = [row for key, row in scene.partitions.items() if key not in moved]
    found = {}
    for one in looked:
        if one.action not in (Action.REPLACE, Action.STOP) or one.partition.deployment is None:
            continue
        peers = [partition_view(row) for row in stay]
        for recycle in recycling.to_recycle(
            partition_view(one.partition), one.partition.deployment.kv_connector, peers
        ):
            found[recycle.partition] = recycle
    return [
        {"partition": {"id": one.partition, "name": one.name}, "text": one.text} for _, one in sorted(found.items())
    ]
