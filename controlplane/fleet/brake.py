"""The brake: while many nodes are silent at once nothing is rescheduled by itself. The only writer of what BrakeRow
remembers; whoever is about to act without being told to asks `before_acting(now).on`.

What is remembered is written by a look each ten seconds. In between `state` judges by the nodes as they are now, so
that it is never older than the reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor, record
from controlplane.domain import quorum
from controlplane.fleet.models import BrakeRow, Node

log = structlog.get_logger(__name__)

ROW = 1
LOOK_LATE_S = 30.0  # three looks missed: the worker is down
NAMES = 5  # so many silent nodes are told by name
ACTOR = Actor.system("forebay")


@dataclass(frozen=True, slots=True)
class Brake:
    """`on`: nothing may act by itself. `tripped` and not `on`: somebody has released it for a time."""

    on: bool
    tripped: bool
    cause: str  # domain.quorum's; "" where it is not tripped
    silent: tuple[tuple[int, str], ...]  # (id, name), by name
    heard: int  # nodes that are, of those that count
    counted: int
    since: datetime | None
    released_until: datetime | None
    released_by: str
    text: str  # for people; "" where it is not tripped

    @property
    def key(self) -> str:
        """Another one where people have something new to read."""
        return f"{self.cause}-{self.on:d}-{len(self.silent)}-{self.counted}" if self.tripped else ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: moments in unix seconds."""
        moments = {name: _unix(getattr(self, name)) for name in ("since", "released_until")}
        return {**asdict(self), "silent": [{"id": pk, "name": name} for pk, name in self.silent], **moments}


class _Seen(Protocol):
    """What of a node that was heard counts."""

    pk: int
    name: str
    draining: bool
    last_seen: datetime


def state(now: datetime | None = None, *, nodes: Iterable[Node] | None = None) -> Brake:
    """The brake as of now; reads only. `nodes`: all of them, where the caller has them at hand."""
    now, row = now or timezone.now(), _row()
    known = _nodes() if nodes is None else _that_count(nodes)
    return _brake(row, known, _judge(row, known, now), now)


def before_acting(now: datetime | None = None) -> Brake:
    """For whoever is about to act without being told to. Where nobody has looked for a while, as the worker is down,
    the one who asks looks himself: else what was remembered would never be let go."""
    now, row = now or timezone.now(), _row()
    is_late = row.looked_at is None or abs((now - row.looked_at).total_seconds()) > LOOK_LATE_S
    return look(now) if is_late else state(now)


def last_look() -> datetime | None:
    """When the control worker last looked, as it does each ten seconds; None: never."""
    return _row().looked_at


@transaction.atomic
def look(now: datetime | None = None) -> Brake:
    """Judge, remember it, and record where the brake comes on or goes off. Looking twice is harmless."""
    now = now or timezone.now()
    BrakeRow.objects.get_or_create(pk=ROW)
    row = BrakeRow.objects.select_for_update().get(pk=ROW)
    nodes = _nodes()
    verdict = _judge(row, nodes, now)
    was_on, row.on, row.looked_at = row.on, verdict.on, now
    row.memory = asdict(verdict.memory) | {"counted": sorted(verdict.memory.counted)}
    if verdict.on != was_on:
        row.since = now if verdict.on else None
    row.save(update_fields=["on", "since", "looked_at", "memory"])
    found = _brake(row, nodes, verdict, now)
    if verdict.on != was_on:
        _tell(row, found)
    return found


def _row() -> BrakeRow:
    return BrakeRow.objects.filter(pk=ROW).first() or BrakeRow(pk=ROW)


def _nodes() -> Sequence[_Seen]:
    """Plain rows: every page asks."""
    heard = Node.objects.filter(revoked=False, last_seen__isnull=False).order_by("name")
    return list(heard.values_list("pk", "name", "draining", "last_seen", named=True))


def _that_count(nodes: Iterable[Node]) -> Sequence[_Seen]:
    return sorted((node for node in nodes if not node.revoked and node.last_seen), key=lambda node: node.name)


def _judge(row: BrakeRow, nodes: Sequence[_Seen], now: datetime) -> quorum.Verdict:
    """A draining node may be switched off: its silence is nobody's loss."""
    memory = quorum.Memory(**{**row.memory, "counted": frozenset(row.memory.get("counted", ()))})
    seen = {node.pk: node.last_seen.timestamp() for node in nodes if not node.draining}
    newest = max((node.last_seen.timestamp() for node in nodes), default=None)
    return quorum.judge(seen, newest, memory, now.timestamp(), _rule())


def _rule() -> quorum.Rule:
    return quorum.Rule(
        silent_after_s=settings.SILENT_AFTER_S,
        share=settings.BRAKE_SHARE,
        least=settings.BRAKE_LEAST,
        within_s=settings.BRAKE_WITHIN_S,
        settle_s=settings.BRAKE_SETTLE_S,
        late_s=LOOK_LATE_S,
    )


def _brake(row: BrakeRow, nodes: Sequence[_Seen], verdict: quorum.Verdict, now: datetime) -> Brake:
    lost = set(verdict.silent)
    silent = tuple((node.pk, node.name) for node in nodes if node.pk in lost)
    is_released = (
        verdict.on
        and row.released_until is not None
        and row.released_until > now
        and row.released_since is not None
        and row.released_since == row.since
    )
    return Brake(
        on=verdict.on and not is_released,
        tripped=verdict.on,
        cause=verdict.cause,
        silent=silent,
        heard=verdict.counted - len(silent),
        counted=verdict.counted,
        since=(row.since or _came_on(nodes, verdict, now)) if verdict.on else None,
        released_until=row.released_until if is_released else None,
        released_by=row.released_by if is_released else "",
        text=_text(verdict, [name for _, name in silent]),
    )


def _came_on(nodes: Sequence[_Seen], verdict: quorum.Verdict, now: datetime) -> datetime:
    """Where nobody has looked yet: when the last of the silent ones fell silent."""
    last = max((node.last_seen for node in nodes if node.pk in verdict.silent), default=now)
    return min(now, last + timedelta(seconds=settings.SILENT_AFTER_S))


def _text(verdict: quorum.Verdict, names: list[str]) -> str:
    some = ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")
    count, of = len(names), verdict.counted
    if verdict.cause == quorum.NO_REPORTS:
        return f"None of the {of} nodes is heard: either their reports do not get here, or all of them are down."
    if verdict.cause == quorum.MASS_LOSS:
        return f"{count} of {of} nodes fell silent: {some}."
    if verdict.cause == quorum.SETTLING:
        missing = "1 node has" if count == 1 else f"{count} nodes have"
        return f"Reports have just come again; {missing} not been heard yet: {some}."
    return ""


def _tell(row: BrakeRow, found: Brake) -> None:
    after = {"silent": [name for _, name in found.silent], "counted": found.counted}
    record(ACTOR, "brake-on" if found.tripped else "brake-off", row, after=after, detail=found.text)
    log.warning("brake on" if found.tripped else "brake off", silent=len(found.silent), counted=found.counted)


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
