"""Desired against actual: what one node should do next. No I/O, no clock.

starting -> ready -> draining -> stopping -> exited; draining -> ready when the same engine is wanted again. In a pool
slot on GPUs also draining -> dozing -> asleep -> waking -> starting: who sleeps is kept beside `actual`, by marker, so
that a partition has one engine in `actual` at most, and no other one is awake.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from workers.contract import NodeSpec, Phase, ReplicaSpec, Role

# Gateways read their table anew each second, and at once when a look each 0.1 s finds another routing (ADR 5). A
# request that comes later all the same is refused before its first byte, and goes elsewhere.
SETTLE_S = 1.2
# Of an engine that nobody has asked for a while, which is what a pool empties, and whose door cannot be shut: the next
# request is hardly in that time.
QUIET_S, QUIET_SETTLE_S = 1.0, 0.3
SHUT_MARGIN_S = 0.5  # for its end: an engine whose door opens again sooner than that counts as open
# After SIGTERM to an engine that was idle and settled: nothing is left in it to finish, and the teardown of its KV
# connections was seen to hang until the engine's own timeout (vLLM 0.32.0 with NIXL 1.5.1, 20 s).
IDLE_GRACE_S = 1.5
GRACE_S = 30.0  # after SIGTERM, before SIGKILL; longer than the engine's own shutdown timeout
STEADY_S = 60.0  # ready for so long: earlier restarts no longer count
BACKOFF_CAP_S = 60.0
DOZE_S = 120.0  # for falling asleep: at level 1 the weights go to host memory, which is first pinned
WAKE_S = 300.0  # for waking: at level 2 the weights are read again
WOKEN_S = 60.0  # from awake to the first answer
MIN_LEASE_S = 6  # engines renew leases every sixth of one, in whole seconds


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine process as the agent last saw it. Times are of one clock, that of `now`."""

    spec: ReplicaSpec
    phase: Phase
    since: float  # when the phase began
    # draining: seen without a request ever since, maybe for long before it drained; None = busy or unknown
    idle_since: float | None = None
    idle_seen: float | None = None  # draining: when it was last asked and had none
    shut_until: float | None = None  # draining: it was empty when its door was shut, and lets nobody in until then
    hurried: bool = False  # draining: somebody waits for its devices
    prefill_until: float | None = None  # until when it was labelled prefill, if it no longer is
    restarts: int = 0  # starts in a row that ended without staying up
    asked: bool = False  # exited because it was told to
    can_sleep: bool = False  # started so that it can
    woken: bool = False  # it has slept before


@dataclass(frozen=True, slots=True)
class Start:
    spec: ReplicaSpec
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Drain:
    """`hurried`: another deployment's engine is to have its devices."""

    partition: int
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    partition: int
    force: bool = False


@dataclass(frozen=True, slots=True)
class Relabel:
    """The process is right; what is asked of it is new. Ends a drain that has not become a stop."""

    spec: ReplicaSpec


@dataclass(frozen=True, slots=True)
class Doze:
    """Put the partition's engine to sleep: it has drained. Where that cannot be it is stopped."""

    partition: int


@dataclass(frozen=True, slots=True)
class Wake:
    """The engine of `marker` sleeps in the partition, and is what is wanted awake there."""

    spec: ReplicaSpec
    marker: str


@dataclass(frozen=True, slots=True)
class PutAway:
    """Stop an engine that sleeps."""

    marker: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Steady:
    partition: int


@dataclass(frozen=True, slots=True)
class Forget:
    partition: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Wanted, but not yet to be started; `reason` is for people."""

    spec: ReplicaSpec
    reason: str


Action = Start | Drain | Stop | Relabel | Doze | Wake | PutAway | Steady | Forget | Wait


def reconcile(
    spec: NodeSpec,
    actual: Mapping[int, Replica],
    now: float,
    *,
    usable: Set[str] | None = None,
    held: Set[str] = frozenset(),
    asleep: Mapping[str, Replica] | None = None,
    short: Set[str] = frozenset(),
) -> list[Action]:
    """Every action that brings `actual` nearer to `spec`, safe to take at once.

    `usable`: devices that are there and not lost (None: not known yet). `held`: devices that live processes
    outside `actual` occupy. `asleep`: engines that sleep, by marker. `short`: those of them for which there is no room.
    """
    desired = {replica.partition: replica for replica in spec.replicas}
    actions = [_keep_or_retire(actual[p], desired.get(p), spec, now) for p in sorted(actual)]
    beds, leaving = _beds(spec, asleep or {}, short)
    actions += [put for marker in sorted(leaving) if (put := _put_away(marker, leaving[marker], now))]
    busy = _occupied(actual) | dict.fromkeys(held, "a process left over from earlier")
    busy |= {
        uuid: f"a sleeping engine of {r.spec.name} that is being stopped"
        for r in leaving.values()
        for uuid in r.spec.gpus
    }
    actions += [
        _admit(desired[p], actual.get(p), beds.get(desired[p].content()), busy, usable=usable, now=now)
        for p in sorted(desired)
    ]
    return [action for action in actions if action is not None]


def _beds(
    spec: NodeSpec, asleep: Mapping[str, Replica], short: Set[str]
) -> tuple[dict[tuple[object, ...], str], dict[str, Replica]]:
    """Markers of the engines that may sleep on, by content, and those that are put away: of two alike the one that
    fell asleep first, too."""
    wanted = {one.content() for one in (*spec.sleepers, *spec.replicas)}
    beds: dict[tuple[object, ...], str] = {}
    for marker in sorted(asleep, key=lambda m: (asleep[m].since, m)):
        replica = asleep[marker]
        if replica.phase == Phase.ASLEEP and marker not in short and replica.spec.content() in wanted:
            beds[replica.spec.content()] = marker
    return beds, {marker: replica for marker, replica in asleep.items() if marker not in set(beds.values())}


def _put_away(marker: str, replica: Replica, now: float) -> Action | None:
    if replica.phase != Phase.STOPPING:
        return PutAway(marker)
    return PutAway(marker, force=True) if now - replica.since >= IDLE_GRACE_S else None


def backoff_s(restarts: int) -> float:
    """How long an engine that ended by itself rests before its next start."""
    return min(BACKOFF_CAP_S, 2.0 ** min(restarts, 16))


def settle_s(replica: Replica) -> float:
    """How long a draining engine without a request is left to gateways that may not know yet."""
    quiet = replica.idle_since is not None and replica.since - replica.idle_since >= QUIET_S
    return QUIET_SETTLE_S if quiet else SETTLE_S


def may_shut(replica: Replica, idle_since: float, now: float) -> bool:
    """Whether to let nobody in any more, of one that is idle: where requests may still come, and nobody waits for its
    devices, they are better served than refused."""
    return replica.hurried or replica.since - idle_since >= QUIET_S or now - replica.since >= settle_s(replica)


def is_shut(replica: Replica, now: float) -> bool:
    """Nobody is inside and nobody comes in, whatever gateways know: there is nothing to wait for."""
    return replica.shut_until is not None and now < replica.shut_until - SHUT_MARGIN_S


def lease_s(spec: ReplicaSpec) -> int:
    """How long blocks that nobody has pulled are kept."""
    return max(MIN_LEASE_S, spec.kv_lease_s)


def is_drained(replica: Replica, now: float, drain_s: float | None = None) -> bool:
    """Settled and idle, or out of patience: after `drain_s` where that is given, else after the engine's own."""
    if now - replica.since >= (replica.spec.drain_s if drain_s is None else drain_s):
        return True
    if replica.idle_since is None:
        return False
    settle, lease = settle_s(replica), lease_s(replica.spec)
    settled = replica.since + (0.0 if is_shut(replica, now) else settle)
    if replica.idle_seen is None or replica.idle_seen < settled:
        return False  # a request may have come since it was looked at
    # A decoder may pull a prefill engine's blocks until their lease ends, and no request shows while it does. Its last
    # request may have ended just before it was found idle, or so long ago that its blocks are nobody's any more.
    if replica.spec.role == Role.PREFILL:
        settled = max(settled, replica.idle_since + settle + lease)
    if replica.prefill_until is not None:
        settled = max(settled, replica.prefill_until + settle + lease)
    return now >= settled


def _keep_or_retire(replica: Replica, desired: ReplicaSpec | None, spec: NodeSpec, now: float) -> Action | None:
    """An engine that goes without another one in its place has the node's own drain deadline."""
    partition, age = replica.spec.partition, now - replica.since
    wanted = desired is not None and desired.content() == replica.spec.content()
    if replica.phase == Phase.STOPPING:
        grace = GRACE_S if replica.idle_since is None else IDLE_GRACE_S
        return Stop(partition, force=True) if age >= grace else None
    if replica.phase == Phase.DOZING:  # and then it is woken, where it is wanted after all
        return Stop(partition) if age >= DOZE_S else None
    if _is_stuck(replica, age):
        return Stop(partition)  # and then it is started plainly
    if desired is not None and wanted:
        if desired != replica.spec or replica.phase == Phase.DRAINING:
            return Relabel(desired)
        steady = replica.phase == Phase.READY and replica.restarts and age >= STEADY_S
        return Steady(partition) if steady else None
    if replica.phase == Phase.EXITED:
        return None if desired else Forget(partition)
    if replica.phase == Phase.READY:
        return Drain(partition, desired is not None and desired.deployment != replica.spec.deployment)
    if replica.phase == Phase.DRAINING:
        if not is_drained(replica, now, None if desired else spec.drain_s):
            return None
        return Doze(partition) if _may_sleep(replica, spec) else Stop(partition)
    return Stop(partition)


def _is_stuck(replica: Replica, age: float) -> bool:
    """It was to wake, and does not."""
    if replica.phase == Phase.WAKING:
        return age >= WAKE_S
    return replica.phase == Phase.STARTING and replica.woken and age >= WOKEN_S


def _may_sleep(replica: Replica, spec: NodeSpec) -> bool:
    return replica.can_sleep and replica.spec.content() in {one.content() for one in spec.sleepers}


def _occupied(actual: Mapping[int, Replica]) -> dict[str, str]:
    alive = (replica for replica in actual.values() if replica.phase != Phase.EXITED)
    return {uuid: f"partition {r.spec.name} ({r.phase})" for r in alive for uuid in r.spec.gpus}


def _admit(
    desired: ReplicaSpec,
    replica: Replica | None,
    bed: str | None,
    busy: dict[str, str],
    *,
    usable: Set[str] | None,
    now: float,
) -> Action | None:
    """`bed`: marker of the same engine where it sleeps."""
    if replica is not None and replica.phase != Phase.EXITED:
        return None
    if not desired.gpus:
        return Wait(desired, "no device is assigned to it")
    if missing := [uuid for uuid in desired.gpus if usable is not None and uuid not in usable]:
        return Wait(desired, f"device {missing[0]} is lost or not on this node")
    if taken := [uuid for uuid in desired.gpus if uuid in busy]:
        return Wait(desired, f"device {taken[0]} is still held by {busy[taken[0]]}")
    if bed is not None:
        busy.update(dict.fromkeys(desired.gpus, f"partition {desired.name} (waking)"))
        return Wake(desired, bed)
    restarts = 0
    if replica is not None and not replica.asked and replica.spec.content() == desired.content():
        rest = replica.since + backoff_s(replica.restarts) - now
        if rest > 0:
            return Wait(desired, f"next start in {rest:.0f} s")
        restarts = replica.restarts + 1
    busy.update(dict.fromkeys(desired.gpus, f"partition {desired.name} (starting)"))
    return Start(desired, restarts)
