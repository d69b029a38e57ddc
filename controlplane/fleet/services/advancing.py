"""Carries an open change on: looks at the fleet, takes at most one step, and forgets.

Whatever may have moved a change calls `advance`: reports of nodes, gateways that verified an engine, and the beat.
Calling it twice, late or from two processes at once is harmless: the change's row is locked, and the next look finds
whatever the last one missed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain import health, placement, rollout
from controlplane.domain.impact import Action
from controlplane.domain.rollout import Blocked, Cost, Lane, Move, Place, Step
from controlplane.domain.types import PartitionStatus, Role
from controlplane.fleet import brake, verified, versions
from controlplane.fleet.brake import Brake
from controlplane.fleet.errors import FleetError
from controlplane.fleet.facts import has_process, partition_view
from controlplane.fleet.models import Change, Deployment, Partition
from controlplane.fleet.services import change_pool, change_steps, checks, desired, nodes, scenes
from controlplane.fleet.services.change_preview import RECYCLE
from controlplane.fleet.services.change_steps import DONE, FAILED, RUNNING
from controlplane.fleet.services.scenes import Scene
from controlplane.fleet.verified import Verification
from workers.contract import Phase

logger = logging.getLogger(__name__)
HOLD_S = 30.0  # so long a change that can take no step waits before it stops and asks people
LOST_S = 30.0  # so long the node of a running step may be silent
START_S = 1800.0  # for an engine whose start was never measured
SLACK_S = 120.0


def advance(change_id: int) -> None:
    """Take the next step of a running change, if the last one is done."""
    with transaction.atomic():
        change = Change.objects.select_for_update(of=("self",)).filter(pk=change_id).first()
        if change is None or change.state != Change.State.RUNNING:
            return
        try:
            scene = lock_scene(change)
        except FleetError as error:
            _stop(change, str(error))
            return
        step(change, scene)


def advance_all() -> int:
    """All that are running; how many those were. One that fails does not keep the others from going on."""
    running = Change.objects.filter(state=Change.State.RUNNING).order_by("pk")
    found = list(running.values_list("pk", flat=True))
    for change_id in found:
        try:
            advance(change_id)
        except DatabaseError:
            logger.warning("change %s could not be looked at now; the next look will", change_id, exc_info=True)
    return len(found)


def step(change: Change, scene: Scene) -> None:
    """As `advance`, with the change and its scene locked."""
    now = timezone.now()
    if (braked := brake.before_acting(now)).on:
        _wait_for_the_brake(change, braked)
        return
    entry = change_steps.running(change)
    if entry is not None:
        verdict, message = _judge(entry, scene.partitions[entry["partition"]], now)
        if verdict == RUNNING:
            return
        entry |= {"state": verdict, "ended_at": now.isoformat(), "message": message}
        if verdict == FAILED:
            _stop(change, message)
            return
    _take_next(change, scene, now)


def lock_scene(change: Change) -> Scene:
    """Of all that it concerns, whichever way it leads. The change itself is locked before."""
    sides = [assigned for move in change.moves for assigned in (move["before"], move["after"])]
    slots = change_pool.nodes([row["partition"]["id"] for row in change_pool.rows_of(change)])
    also = {side["deployment"]["id"] for side in sides if side["deployment"]}
    return scenes.lock(target_of(change), also, beside=slots)


def target_of(change: Change) -> list[Move]:
    """Where its steps lead now."""
    side = "before" if change.backwards else "after"
    return [move_to(move["partition"]["id"], move[side]) for move in change.moves]


def move_to(partition: int, assigned: Mapping[str, Any]) -> Move:
    """`assigned` as plans hold it."""
    deployment, role = assigned["deployment"], assigned["role"]
    return Move(partition, deployment["id"] if deployment else None, Role(role) if role else None)


def actor_of(change: Change) -> Actor:
    """Whose steps these are: the one who applied it."""
    return Actor(
        name=change.actor_name, source=change.source, user=change.actor, request_id=change.request_id,
        address=change.address,
    )  # fmt: skip


def _judge(entry: dict[str, Any], row: Partition, now: datetime) -> tuple[str, str]:
    """Whether the step that was taken is done, and why it failed."""
    since = (now - datetime.fromisoformat(entry["began_at"])).total_seconds()
    silent_s = (now - row.node.last_seen).total_seconds() if row.node.last_seen else since
    if row.deployment is None:
        if not has_process(row):
            return DONE, ""
        if silent_s > settings.SILENT_AFTER_S:
            return DONE, f"{row.node.name} is silent; its engine ends when it is heard again."
    elif health.is_confirmed(partition_view(row)) and row.observed_role == row.role:
        verdict = verified.state(row, now)
        if verdict in (Verification.VERIFIED, Verification.NO_GATEWAY):
            return DONE, ""
        if verdict is Verification.FAILED:
            return FAILED, f"{row} is ready, but a request through the gateway failed: {verified.message_of(row)}"
    elif silent_s > settings.SILENT_AFTER_S + LOST_S:
        return FAILED, f"{row.node.name} has been silent for {silent_s:.0f} s."
    elif _is_crash_looping(entry, row):
        why = f": {row.message}" if row.message else "."
        return FAILED, f"The engine of {row} failed {row.restarts} times in a row{why}"
    if since > entry["deadline_s"]:
        return (
            FAILED,
            f"{row} was not confirmed within {entry['deadline_s']:.0f} s; it is {row.phase or 'not started'}.",
        )
    return RUNNING, ""


def _is_crash_looping(entry: dict[str, Any], row: Partition) -> bool:
    heard = row.observed_generation == row.generation
    down = row.phase in ("", Phase.STARTING, Phase.EXITED)
    return heard and down and row.restarts - entry.get("restarts", 0) >= health.CRASH_LOOP_AFTER


def _take_next(change: Change, scene: Scene, now: datetime) -> None:
    target = target_of(change)
    quick = {move["partition"]["id"] for move in change.moves if move["action"] == Action.RELABEL}
    found = rollout.next_step(scene.places(), target, quick=quick, may_stop=change.force)
    if found is None and (recycled := _to_recycle(change, scene)) is not None:
        _recycle(change, recycled, now)
    elif found is None:
        _finish(change, now)
    elif isinstance(found, Blocked):
        _hold(change, _blocked_words(found.lanes, scene), now, _is_coming(found.lanes, scene))
    elif found.cost is Cost.ROLE_GAP and (lanes := _left(found, scene)) and _is_coming(lanes, scene):
        _hold(change, _blocked_words(lanes, scene), now, True)  # another engine in this role is on its way
    else:
        _take(change, found, scene, target, now)


def _take(change: Change, found: Step, scene: Scene, target: list[Move], now: datetime) -> None:
    move = found.move
    row = scene.partitions[move.partition]
    deployment = scene.deployments[move.deployment] if move.deployment is not None else None
    role = move.role.value if move.role else ""
    if deployment is not None and move.role is not None:
        problems = checks.obstacles(row, deployment, move.role, scene.peers(move, target))
        # On the way back the fleet returns to what it was: what can be overruled then is.
        if found_problems := placement.blocking(problems, force=change.force or change.backwards):
            _stop(change, f"{row}: {' '.join(problem.message for problem in found_problems)}")
            return
    entry = change_steps.begin(change, row, f"{deployment.name} {role}" if deployment else "nothing")
    entry |= {
        "state": RUNNING,
        "began_at": now.isoformat(),
        "action": checks.action(row, deployment, role).value,
        "restarts": 0,
        "deadline_s": _deadline_s(row, deployment),
    }
    change.message, change.held_since = "", None
    change.save(update_fields=["steps", "message", "held_since"])
    desired.write(row, deployment, role, actor=actor_of(change), reason=change.reason, change=change.pk)


def _to_recycle(change: Change, scene: Scene) -> Partition | None:
    """The next engine that has to start again because a prefill engine beside it is another process now."""
    waiting = [e["partition"] for e in change.steps if e["action"] == RECYCLE and e["state"] == change_steps.WAITING]
    rows = [scene.partitions[key] for key in waiting if key in scene.partitions]
    return next((row for row in rows if row.deployment is not None and row.role == Role.DECODE), None)


def _recycle(change: Change, row: Partition, now: datetime) -> None:
    entry = change_steps.begin(change, row, "")
    entry |= {"state": RUNNING, "began_at": now.isoformat(), "restarts": 0}
    entry["deadline_s"] = _deadline_s(row, row.deployment)
    change.message, change.held_since = "", None
    change.save(update_fields=["steps", "message", "held_since"])
    desired.renew(row, actor=actor_of(change), reason=change.reason, change=change.pk)


def _deadline_s(row: Partition, deployment: Deployment | None) -> float:
    """Long enough for a slow drain and a slow start, but a person must hear of it some time."""
    drain = row.deployment.drain_s if row.deployment and has_process(row) else 0
    if deployment is None:
        return drain + settings.KV_LEASE_S + SLACK_S
    start = checks.usual_start_s(deployment, row.node)
    return drain + settings.KV_LEASE_S + (4 * start + SLACK_S if start is not None else START_S)


def _finish(change: Change, now: datetime) -> None:
    actor = actor_of(change)
    if change.node_id is not None and not change.backwards:
        nodes.begin_drain(change.node_id, actor=actor, reason=change.reason, deadline_s=change.node_drain_s)
    change_pool.finish(change, actor)
    before = {"state": change.state}
    change.state = Change.State.ROLLED_BACK if change.backwards else Change.State.DONE
    change.finished_at, change.message, change.held_since = now, "", None
    change_steps.drop_waiting(change)
    change.save()
    verb = "rolled-back" if change.backwards else "done"
    versions.record(actor, verb, change, before=before, after={"state": change.state}, change=change.pk)


def _hold(change: Change, why: str, now: datetime, is_coming: bool) -> None:
    """Perhaps an engine is only just restarting: wait a little before people are asked, longer for one that starts."""
    change.held_since = change.held_since or now
    if now - change.held_since > timedelta(seconds=START_S if is_coming else HOLD_S):
        _stop(change, why)
        return
    change.message = why
    change.save(update_fields=["steps", "message", "held_since"])


def _wait_for_the_brake(change: Change, braked: Brake) -> None:
    """Not even a step that was taken is judged: where many nodes are silent its own one may only seem to be lost."""
    message = f"The brake is on. {braked.text} It goes on by itself once they are back, or when the brake is released."
    if change.message != message:
        change.message, change.held_since = message, None
        change.save(update_fields=["message", "held_since"])


def _stop(change: Change, why: str) -> None:
    change.state, change.message, change.held_since = Change.State.STOPPED, why[:2000], None
    change.save()
    before, after = {"state": Change.State.RUNNING}, {"state": change.state}
    versions.record(actor_of(change), "stopped", change, before=before, after=after, detail=why, change=change.pk)


def _left(found: Step, scene: Scene) -> tuple[Lane, ...]:
    lane = scene.places()[found.move.partition].own_lane
    return (lane,) if lane else ()


def _is_coming(lanes: Collection[Lane], scene: Scene) -> bool:
    """Whether an engine that would serve one of these roles is on its way."""
    now = time.time()
    places = scene.places().items()
    down = [scene.partitions[key] for key, place in places if place.own_lane in lanes and not place.serving]
    statuses = {health.partition_status(partition_view(row), now, settings.SILENT_AFTER_S) for row in down}
    return bool(statuses & {PartitionStatus.PENDING, PartitionStatus.STARTING, PartitionStatus.READY})


def _blocked_words(lanes: Collection[Lane], scene: Scene) -> str:
    names = {row.pk: row.name for row in scene.deployments.values()}
    told = ", ".join(f"{names[key]} ({role})" for key, role in lanes)
    down = [str(scene.partitions[key]) for key, place in scene.places().items() if _is_down(place)]
    why = f" Not serving: {', '.join(down)}." if down else ""
    return f"The next step would leave nothing that serves {told}.{why}"


def _is_down(place: Place) -> bool:
    return place.lane is not None and not place.serving
