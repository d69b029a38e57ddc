"""Who is speaking: whether a report comes from the one agent that may speak for its node, and whether it is new.

Two agents with one identity would each undo what the other does. They are told apart by `instance`, which each agent
home has, and where a home was copied by `boot`, which each agent process has. Processes of one home number their
reports by the clock at their start: what comes with a lower number was sent by an earlier one. That holds in every web
process, also in one that has not heard of the restart.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor, record
from controlplane.fleet.errors import IdentityConflict
from controlplane.fleet.models import Node
from workers.contract import NodeReport

BOOTS_KEPT = 8
LATE_FOR = 2  # times the silence limit: an earlier process that is heard for longer lives
TELL_EVERY = timedelta(hours=1)
_lock = threading.Lock()
_past_boots: dict[int, list[str]] = {}  # by node: processes that another one of the same agent home has followed
_late_since: dict[int, dict[str, datetime]] = {}  # by node: earlier processes, and when one was first heard too late
_told: set[tuple[int, str, str]] = set()  # conflicts that are in the audit trail already


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report is: late, or the next one; and what changed about the speaker since the last one."""

    is_late: bool = False
    is_takeover: bool = False
    is_new_boot: bool = False
    silent_s: float | None = None  # how long nothing was heard, where that was too long


def judge(report: NodeReport, *, node: Node, now: datetime) -> Verdict:
    """`node` as it is in the database now. Raises IdentityConflict where another agent owns this identity."""
    silent_s = _silence(node, now)
    if node.instance and node.instance != report.instance:
        if silent_s is None and node.last_seen is not None:
            raise _conflict(node)
        return Verdict(is_takeover=True, is_new_boot=True, silent_s=silent_s)
    if node.boot == report.boot:
        return Verdict(is_late=bool(node.instance) and report.seq <= node.last_seq, silent_s=silent_s)
    with _lock:
        copied = bool(report.boot) and report.boot in _past_boots.get(node.pk, ())
    if copied:
        raise _conflict(node)
    if node.boot and report.seq <= node.last_seq and silent_s is None and node.last_seen is not None:
        if _speaks_on(node.pk, report.boot, now):
            raise _conflict(node)
        return Verdict(is_late=True)
    return Verdict(is_new_boot=True, silent_s=silent_s)


def tell_once(report: NodeReport, node: Node) -> None:
    """Put a conflict into the audit trail, outside the transaction that it ended. The other agent keeps trying: it is
    told once an hour, however many web processes see it."""
    key = (node.pk, report.instance, report.boot)
    with _lock:
        if key in _told:
            return
        _told.add(key)
    after = {"instance": report.instance[:12], "boot": report.boot[:12]}
    recent = AuditEvent.objects.filter(
        verb="identity-conflict",
        subject_type="node",
        subject_id=node.pk,
        at__gte=timezone.now() - TELL_EVERY,
        after=after,
    )
    if not recent.exists():
        detail = "Two agents report as this node. The one that was heard first goes on; the other was told to stop."
        record(Actor.agent(node.name), "identity-conflict", node, after=after, detail=detail)


def remember_boot(node_id: int, left: str) -> None:
    """The process `left` was followed by another: should it speak again, the agent's home was copied."""
    with _lock:
        _late_since.pop(node_id, None)
        if not left:
            return
        boots = _past_boots.setdefault(node_id, [])
        boots.append(left)
        del boots[:-BOOTS_KEPT]


def forget() -> None:
    with _lock:
        _past_boots.clear()
        _late_since.clear()
        _told.clear()


def _speaks_on(node_id: int, boot: str, now: datetime) -> bool:
    """Whether an earlier process is heard for longer than reports can be late: the agent's home was copied. A new one
    whose clock was set back is taken before that, once the node counts as silent."""
    with _lock:
        heard = _late_since.setdefault(node_id, {})
        since = heard.setdefault(boot, now)
        while len(heard) > BOOTS_KEPT:
            del heard[next(iter(heard))]
    return (now - since).total_seconds() > LATE_FOR * settings.SILENT_AFTER_S


def _silence(node: Node, now: datetime) -> float | None:
    if node.last_seen is None:
        return None
    gap = (now - node.last_seen).total_seconds()
    return gap if gap > settings.SILENT_AFTER_S else None


def _conflict(node: Node) -> IdentityConflict:
    return IdentityConflict(
        f"Another agent reports as {node.name}. This one must stop: an agent's home folder must not be copied. "
        "Join this host with a name and a join token of its own."
    )
