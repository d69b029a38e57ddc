"""Several moves as one change: apply, resume, roll back, and what would undo it. advancing.py takes the steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.db import transaction

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain import placement
from controlplane.domain.impact import Live
from controlplane.domain.rollout import Move
from controlplane.domain.types import Problem
from controlplane.fleet import owners, versions
from controlplane.fleet.errors import Conflict, Invalid, NotFound, Refused
from controlplane.fleet.models import Change, Partition
from controlplane.fleet.services import advancing, change_pool, change_steps, exclusive, nodes, scenes
from controlplane.fleet.services.change_preview import look
from controlplane.fleet.services.scenes import Scene


class Stale(Conflict):
    """The plan was made on an older fleet, and what it concerns has changed since. `events`: newest first."""

    code = "stale-plan"

    def __init__(self, events: Sequence[AuditEvent]) -> None:
        self.events = tuple(events)
        last = events[0]
        more = f" and {len(events) - 1} more" if len(events) > 1 else ""
        message = (
            f"{last.actor_name} was faster: {last.verb} {last.subject_name} "
            f"at {last.at:%Y-%m-%d %H:%M:%S} UTC{more}. Nothing was changed."
        )
        super().__init__(message, "Plan again on the fleet as it is now.")


@transaction.atomic
def apply_change(
    moves: Sequence[Move],
    *,
    version: int,
    actor: Actor,
    reason: str = "",
    force: bool = False,
    live: Live | None = None,
    kind: str = Change.Kind.CHANGE,
    undoes: int | None = None,
    then_drain: int | None = None,
    drain_s: float | None = None,
    pool: Mapping[int, bool] | None = None,
) -> Change:
    """Begin the change: its first step is taken before this returns, the others follow by themselves.

    `version` is the preview's. Stale where somebody changed since what it concerns; Conflict where another open change
    moves one of the partitions; Refused where a problem stands against it that `force` does not override.
    `then_drain`: a node to drain once all moves are made. `pool`: partitions to set aside for the pool or take back
    with it; an undo does the inverse of what it undoes."""
    undone = _undone(undoes)
    slots = change_pool.inverse(undone) if undone else dict(pool or {})
    beside = change_pool.nodes(slots)
    scene = scenes.lock(moves, leaving=then_drain, beside=beside)
    owners.require(actor, "partition.assign", *owners.of_moves(moves, leaving=then_drain))
    _require_fresh(scene, version, {*beside, *([then_drain] if then_drain is not None else [])})
    exclusive.require_free([move.partition for move in moves])
    plan = look(scene, moves, version=version, live=live or Live(), leaving=then_drain)
    _require_lawful(plan, force, empty=then_drain is not None or bool(slots))
    plan |= {"pool": change_pool.planned(slots, actor), "warnings": [*plan["warnings"], *change_pool.told(slots)]}
    change = Change.objects.create(
        kind=kind, plan=plan, moves=[move for move in plan["moves"] if move["action"] != "none"],
        steps=[change_steps.planned(step) for step in plan["steps"]], reason=reason, force=force, version=version,
        undoes=undone, node_id=then_drain, node_drain_s=drain_s, actor=actor.user, actor_name=actor.name[:150],
        source=actor.source, request_id=actor.request_id, address=actor.address,
    )  # fmt: skip
    _begin(change, scene, actor)
    return change


def _begin(change: Change, scene: scenes.Scene, actor: Actor) -> None:
    """Written down, with the drain that it undoes called off, the slots that it takes, and its first step."""
    if change.undoes is not None and change.undoes.node_id is not None:
        nodes.cancel_drain(change.undoes.node_id, actor=actor, reason=change.reason)
    versions.record(
        actor, change.kind, change, after={"moves": [_told(move) for move in change.moves]}, reason=change.reason,
        deployments=scene.deployments, change=change.pk,
    )  # fmt: skip
    change_pool.begin(change, actor, scene.partitions)
    advancing.step(change, scene)


@transaction.atomic
def resume_change(change_id: int, *, actor: Actor, reason: str = "") -> Change:
    """Go on with a stopped change, in the direction that it had."""
    change = _lock_stopped(change_id)
    _require_owner(change, actor)
    change_steps.again(change)
    _go_on(change, "resume", actor, reason)
    return change


@transaction.atomic
def roll_back_change(change_id: int, *, actor: Actor, reason: str = "") -> Change:
    """Lead an open change back to what was before, one safe step at a time."""
    change = _lock(change_id)
    if not change.is_open or change.backwards:
        what = "is being rolled back" if change.is_open else f"is {change.get_state_display().lower()}"
        fix = "" if change.is_open else "Undo it instead: that is a change of its own."
        raise Refused([Problem("not-open", f"Change {change.pk} {what} already.", fix)])
    _require_owner(change, actor)
    change.backwards = True
    change_steps.turn_back(change)
    _go_on(change, "roll-back", actor, reason)
    return change


def inverse_moves(change_id: int) -> list[Move]:
    """What would undo a change that is done; no moves where it was about slots of the pool alone. Refused
    where it can't be, Conflict where somebody changed it since."""
    change = Change.objects.filter(pk=change_id).first()
    if change is None:
        raise NotFound("change", change_id)
    if change.state != Change.State.DONE:
        fix = "Roll it back instead." if change.is_open else ""
        raise Refused([Problem("not-done", f"Change {change_id} is {change.get_state_display().lower()}.", fix)])
    if later := Change.objects.filter(undoes=change).first():
        raise Refused([Problem("undone", f"Change {change_id} was undone by change {later.pk}.", "Undo that one.")])
    _require_as_left(change)
    if not (change.moves or change_pool.inverse(change)):
        raise Refused([Problem("no-moves", f"Everything is as it was before change {change_id}.", "Nothing is left.")])
    return [advancing.move_to(move["partition"]["id"], move["before"]) for move in change.moves]


def _require_as_left(change: Change) -> None:
    for move in change.moves:
        row = Partition.objects.filter(pk=move["partition"]["id"]).first()
        wanted = advancing.move_to(move["partition"]["id"], move["after"])
        is_left = row and (row.deployment_id, row.role or None) == (wanted.deployment, wanted.role)
        if not is_left:
            last = (
                AuditEvent.objects.filter(subject_type="partition", subject_id=move["partition"]["id"])
                .exclude(source=AuditEvent.Source.AGENT)
                .first()
            )
            who = f" {last.actor_name} changed it last ({last.verb}, {last.at:%Y-%m-%d %H:%M:%S} UTC)." if last else ""
            message = f"{move['partition']['name']} is no longer as change {change.pk} left it.{who}"
            raise Conflict(message, "Plan a change of your own.")


def _require_owner(change: Change, actor: Actor) -> None:
    """Of both what it leads to and what it came from: to go on and to turn back change the same."""
    ways = [
        advancing.move_to(move["partition"]["id"], move[way]) for move in change.moves for way in ("before", "after")
    ]
    owners.require(actor, "partition.assign", *owners.of_moves(ways, leaving=change.node_id))


def _require_fresh(scene: Scene, version: int, beside: Collection[int]) -> None:
    if events := versions.newer(version, nodes={*scene.nodes, *beside}, deployments=scene.deployments):
        raise Stale(events)


def _require_lawful(plan: dict[str, Any], force: bool, *, empty: bool) -> None:
    problems = [Problem(**problem) for problem in plan["problems"]]
    if found := placement.blocking(problems, force=force):
        raise Refused(found if not force else problems)
    if not empty and all(move["action"] == "none" for move in plan["moves"]):
        raise Invalid([Problem("no-moves", "Everything is as these moves want it already.", "Nothing is left to do.")])


def _undone(change_id: int | None) -> Change | None:
    """Locked, so that of two who undo it one is refused."""
    if change_id is None:
        return None
    change = _lock(change_id)
    if Change.objects.filter(undoes=change).exists():
        raise Conflict(f"Change {change_id} was undone in this very moment.")
    return change


def _go_on(change: Change, verb: str, actor: Actor, reason: str) -> None:
    before = {"state": change.state}
    change.state, change.message, change.held_since = Change.State.RUNNING, "", None
    change.save()
    scene = advancing.lock_scene(change)
    after = {"state": change.state, "backwards": change.backwards}
    versions.record(actor, verb, change, before=before, after=after, reason=reason, change=change.pk)
    advancing.step(change, scene)


def _lock_stopped(change_id: int) -> Change:
    change = _lock(change_id)
    if change.state != Change.State.STOPPED:
        message = f"Change {change_id} is {change.get_state_display().lower()}."
        raise Refused([Problem("not-stopped", message, "Only a stopped change can be resumed.")])
    return change


def _lock(change_id: int) -> Change:
    """Before any deployment or node: everybody locks in that order."""
    change = Change.objects.select_for_update(of=("self",)).filter(pk=change_id).first()
    if change is None:
        raise NotFound("change", change_id)
    return change


def _told(move: dict[str, Any]) -> dict[str, Any]:
    return {
        "partition": move["partition"]["name"],
        "before": _words(move["before"]),
        "after": _words(move["after"]),
    }


def _words(assigned: dict[str, Any]) -> str:
    return f"{assigned['deployment']['name']} {assigned['role']}" if assigned["deployment"] else "unassigned"
