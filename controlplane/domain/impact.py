"""What moves do to those who are served: engines and load per role before and after, and how long it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.problems import Problem
from controlplane.domain.rollout import ANSWERS, Blocked, Cost, Lane, Place, Step, answers
from workers.contract import Role

RELABEL_S = 1.0  # the nudge, the agent's answer, and the gateways' next look at their table
_ORDER = {role: place for place, role in enumerate(Role)}  # as requests go through them
DECODE_SETTLE_S = 1.2  # what an agent leaves the gateways to see that an engine drains


class Action(StrEnum):
    """What becomes of the partition's engine."""

    NONE = "none"
    START = "start"
    RELABEL = "relabel"
    REPLACE = "replace"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Load:
    """Requests on one engine now. None: unknown, never zero."""

    running: float | None = None
    waiting: float | None = None

    @property
    def in_flight(self) -> float | None:
        return None if self.running is None else self.running + (self.waiting or 0.0)


@dataclass(frozen=True, slots=True)
class Served:
    """How a deployment is served at present: requests per second and milliseconds, None where nothing tells."""

    rps: float | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """What is known of the load: by partition and by deployment."""

    partitions: Mapping[int, Load] = field(default_factory=dict)
    deployments: Mapping[int, Served] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objectives:
    """Of one deployment: names and bounds that the words need. Milliseconds; None: no objective, no maximum."""

    name: str
    slo_ttft_ms: float | None = None
    slo_itl_ms: float | None = None
    lowest: Mapping[Role, int] = field(default_factory=dict)
    highest: Mapping[Role, int | None] = field(default_factory=dict)
    pooled: bool = False  # whoever asks for it when it has no engine has it woken


@dataclass(frozen=True, slots=True)
class Effect:
    """One role of one deployment, before and after. Loads are requests in flight."""

    lane: Lane
    engines_before: int
    engines_after: int
    gpus_before: int
    gpus_after: int
    in_flight: float | None
    text: str

    @property
    def per_engine_before(self) -> float | None:
        return _share(self.in_flight, self.engines_before)

    @property
    def per_engine_after(self) -> float | None:
        return _share(self.in_flight, self.engines_after)


def effects(
    before: Mapping[int, Place],
    after: Mapping[int, Place],
    gpus: Mapping[int, int],
    live: Live,
    about: Mapping[int, Objectives],
) -> list[Effect]:
    """Every role that gains, loses or exchanges an engine; what the pool lends counts for none. `gpus`: how many a
    partition has."""
    found = []
    for lane in sorted(_changed_lanes(before, after), key=lambda lane: (lane[0], _ORDER[lane[1]])):
        old, new = _members(before, lane), _members(after, lane)
        in_flight = _sum(live.partitions.get(partition, Load()).in_flight for partition in old)
        effect = Effect(
            lane, len(old), len(new), sum(gpus.get(p, 0) for p in old), sum(gpus.get(p, 0) for p in new), in_flight, ""
        )
        found.append(_with_words(effect, live.deployments.get(lane[0], Served()), about[lane[0]]))
    return found


def expected_s(
    action: Action, role: Role | None, *, in_flight: float | None, drain_s: float, lease_s: float, start_s: float | None
) -> tuple[float | None, float | None]:
    """(likely, at most) seconds until a move is confirmed; None: not known.

    An idle engine only settles before it ends, a busy one drains as long as its requests take, at most `drain_s`.
    `start_s`: how long engines of the deployment took to get ready, as measured on their nodes.
    """
    settle = DECODE_SETTLE_S + (lease_s if role is Role.PREFILL else 0.0)
    if action is Action.NONE:
        return 0.0, 0.0
    if action is Action.RELABEL:
        return RELABEL_S, RELABEL_S * 2
    if action is Action.STOP:
        return (settle if in_flight == 0 else None), settle + drain_s
    if start_s is None:
        return None, None
    if action is Action.START:
        return start_s, None
    return (min(settle, drain_s) + start_s if in_flight == 0 else None), settle + drain_s + start_s


def warnings(effects: Iterable[Effect], about: Mapping[int, Objectives]) -> list[Problem]:
    """What deserves a second look, but is not refused."""
    found = []
    for effect in effects:
        key, role = effect.lane
        name, lowest = about[key].name, about[key].lowest.get(role, 0)
        if effect.engines_after >= effect.engines_before:
            continue
        if about[key].pooled:
            if effect.engines_after == 0:
                found.append(_woken_again(name))
        elif effect.engines_after < lowest:
            message = f"{name} would have {effect.engines_after} {role} replicas left, and its minimum is {lowest}."
            found.append(Problem("under-minimum", message, "Assign another partition to it first.", forceable=True))
        elif effect.engines_after == 0:
            message = f"This takes the last {role} replica of {name}."
            found.append(Problem("last-replica", message, "Assign another partition to it first.", forceable=True))
    return found


def _woken_again(name: str) -> Problem:
    message = f"{name} leaves the pool; whoever asks for it next waits until it is woken."
    return Problem("woken-again", message, "Go on if nobody asks for it just now.", forceable=True)


def over_maximum(effects: Iterable[Effect], about: Mapping[int, Objectives]) -> list[Problem]:
    """Roles that would get more replicas than their deployment's maximum."""
    found = []
    for effect in effects:
        key, role = effect.lane
        highest = about[key].highest.get(role)
        if highest is None or effect.engines_after <= max(highest, effect.engines_before):
            continue
        message = f"{about[key].name} would have {effect.engines_after} {role} replicas, and its maximum is {highest}."
        found.append(Problem("over-maximum", message, "Raise the maximum, or go on with force.", forceable=True))
    return found


def way_problems(
    taken: Sequence[Step], blocked: Blocked | None, before: Mapping[int, Place], about: Mapping[int, Objectives]
) -> tuple[list[Problem], list[Problem]]:
    """(problems, warnings) of the way from here to there."""
    problems, mild = [], []
    lanes = {before[step.move.partition].own_lane for step in taken if step.cost is Cost.OUTAGE}
    lanes |= set(blocked.lanes) if blocked else set()
    for key in sorted({lane[0] for lane in lanes if lane and not about[lane[0]].pooled}):
        message = f"On the way nothing would serve {about[key].name} until the next engine is ready."
        fix = "Add an engine in the role that runs short, or go on with force."
        problems.append(Problem("would-stop-serving", message, fix, forceable=True))
    gaps = {lane for step in taken if step.cost is Cost.ROLE_GAP and (lane := before[step.move.partition].own_lane)}
    for key, role in sorted(gaps):
        message = f"For a part of the way {about[key].name} has no {role} engine; others take whole requests meanwhile."
        mild.append(Problem("role-gap", message, "Expect a longer TTFT meanwhile.", forceable=True))
    return problems, mild


def end_problems(
    before: Mapping[int, Place], after: Mapping[int, Place], about: Mapping[int, Objectives]
) -> list[Problem]:
    """Deployments that are answered now and would not be afterwards."""
    keys = {place.deployment for place in before.values() if place.serving and not place.lent and place.role in ANSWERS}
    known = [key for key in keys if key is not None and not about[key].pooled]
    lost = [key for key in known if not answers(after.values(), key)]
    fix = "Leave it an engine that decodes, or go on with force."
    return [
        Problem("would-stop-serving", f"Nothing would answer requests for {about[key].name} any more.", fix, True)
        for key in sorted(lost)
    ]


def _with_words(effect: Effect, served: Served, about: Objectives) -> Effect:
    words = [_load_words(effect)]
    role = effect.lane[1]
    if role is not Role.DECODE:
        words.append(_objective_words("TTFT", served.ttft_p95_ms, about.slo_ttft_ms))
    if role is not Role.PREFILL:
        words.append(_objective_words("ITL", served.itl_p95_ms, about.slo_itl_ms))
    return Effect(
        effect.lane, effect.engines_before, effect.engines_after, effect.gpus_before, effect.gpus_after,
        effect.in_flight, " ".join(word for word in words if word),
    )  # fmt: skip


def _load_words(effect: Effect) -> str:
    before, after, count = effect.per_engine_before, effect.per_engine_after, effect.in_flight
    if not effect.engines_before:
        return "No engine has this role now."
    if count is None:
        return "How many requests are in flight is not known."
    left = "" if effect.engines_after else "; no engine is left in this role"
    if not count:
        return f"No request is in flight{left or ' in this role'}."
    flying = "1 request is in flight" if round(count) == 1 else f"{count:.0f} requests are in flight"
    if before is None or after is None:
        return f"{flying}{left}."
    return f"{flying}: {before:.1f} on each engine now, {after:.1f} afterwards."


def _objective_words(what: str, measured: float | None, objective: float | None) -> str:
    if measured is None:
        return ""
    if objective is None:
        return f"{what} p95 is {measured:.0f} ms."
    verdict = "above" if measured > objective else "within"
    return f"{what} p95 is {measured:.0f} ms, {verdict} its objective of {objective:.0f} ms."


def _changed_lanes(before: Mapping[int, Place], after: Mapping[int, Place]) -> set[Lane]:
    moved = [key for key in after if before[key].own_lane != after[key].own_lane]
    return {lane for key in moved for place in (before[key], after[key]) if (lane := place.own_lane)}


def _members(places: Mapping[int, Place], lane: Lane) -> list[int]:
    return [key for key, place in places.items() if place.own_lane == lane]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _share(total: float | None, engines: int) -> float | None:
    return round(total / engines, 2) if total is not None and engines else None
