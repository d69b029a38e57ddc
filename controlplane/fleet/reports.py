"""Takes a node's report: the only writer of what is observed.

Reports come each second from each node and mostly say what the last one said. Such a one writes nothing but, every few
seconds, that the node was heard. What this process has written is remembered by node as a fingerprint; it holds only
while the row's `last_seq` is the one that this process wrote, so another web process may take the next report.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.conf import settings
from django.db import DatabaseError, transaction

from controlplane.audit.services import Actor, record
from controlplane.fleet import fetching, identity, observed, qualified, sleeping, weights
from controlplane.fleet.errors import BadReport, IdentityConflict, UnknownNode
from controlplane.fleet.heard import Entry, Touch, heard, is_silent
from controlplane.fleet.models import Node
from controlplane.fleet.outline import Devices, Outline
from controlplane.fleet.publish import publish, spec_of
from controlplane.fleet.services.advancing import advance_all
from workers.contract import NodeReport, NodeSpec, ReplicaStatus, ReportReply

LOOK_EVERY_S = 1.0  # how often changes under way are looked at without news
HEARD_EVERY_S = 3.0  # how often an unchanged node's last_seen is written
SKEW_FLAG_S = 5.0  # beyond it a node's clock is worth a person's attention
MAX_DEVICES = 256
MAX_REPLICAS = 1024
LARGEST_COUNT = 2**53  # of generations and sequence numbers: a lie beyond it would leave no number to go on with
log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Written:
    """What this process last wrote of a node."""

    last_seq: int
    boot: str
    heard_seq: int  # newest report, written or not
    devices: Devices
    news: bytes  # what people wait for
    rest: bytes  # what may lag a few seconds, such as a countdown in a message
    at: float


@dataclass(slots=True)
class _Open:
    """What this process knows of changes that are under way."""

    looked_at: float = 0.0
    running: int = 0


_written: dict[int, _Written] = {}
_open = _Open()


def receive(report: NodeReport, *, node: Node, now: datetime, period_s: float | None = None) -> ReportReply:
    """`node` as it is in the database now; its spec need not be loaded. `period_s`: how often it shall report, if not
    as configured."""
    _require_sane(report, node)
    try:
        verdict = identity.judge(report, node=node, now=now)
        if not verdict.is_late and not _is_repeated(report):
            node, is_news = _write(report, node, verdict, now)
            _carry_changes_on(node, is_news, now)
        spec = _newer_spec(report, node)
    except IdentityConflict:
        identity.tell_once(report, node)
        raise
    except Node.DoesNotExist:  # removed since its token was looked up
        raise UnknownNode from None
    wanted_s = period_s or settings.REPORT_PERIOD_S
    changed_s = wanted_s if report.period_s != wanted_s else None
    return ReportReply(at=time.time(), spec=spec, period_s=changed_s, weights=weights.is_wanted(report, node))


def is_nothing_new(report: Outline, entry: Entry, at: float) -> bool:
    """Whether the report says what this process wrote of its node already. Then it is noted in memory that the node was
    heard, and that is all there is to do. `at`: unix seconds. Runs once a report: it asks the database nothing."""
    known = _written.get(entry.id)
    if (
        known is None
        or report.node != entry.id
        or report.generation < entry.generation
        or report.instance != entry.instance
        or not report.boot == entry.boot == known.boot
        or report.seq <= known.heard_seq
        or known.last_seq != entry.last_seq
        or (_open.running and not 0 <= at - _open.looked_at < LOOK_EVERY_S)
        or is_silent(entry, at)
        or len(report.samples) > MAX_DEVICES
        or not known.devices.are_in(report)
        or known.news != _news(report)
    ):
        return False
    if not 0 <= at - known.at < HEARD_EVERY_S:
        skew = _skew_s(report, at)
        if known.rest != _rest(report) or (abs(skew) > SKEW_FLAG_S) != (abs(entry.skew_s) > SKEW_FLAG_S):
            return False
        heard.touch(entry.id, Touch(report.instance, report.boot, report.seq, at, skew))
        known.at = at
    known.heard_seq = report.seq
    return True


def note_written(touches: dict[int, Touch]) -> None:
    """The rows say now what these say."""
    for id, touch in touches.items():
        known = _written.get(id)
        if known is not None and known.boot == touch.boot and known.last_seq < touch.seq:
            known.last_seq = touch.seq


def forget() -> None:
    """Begin as a fresh process does."""
    _written.clear()
    heard.clear()
    _open.looked_at, _open.running = 0.0, 0
    identity.forget()


def _carry_changes_on(node: Node, is_news: bool, now: datetime) -> None:
    """A report with news may be what a change waits for. While one runs, this process looks each second, whoever
    reports. A spec that it publishes for this very node goes with the answer."""
    at = now.timestamp()
    is_due = _open.running and not 0 <= at - _open.looked_at < LOOK_EVERY_S
    if not is_news and not is_due:
        return
    try:
        _open.looked_at, _open.running = at, advance_all()
    except DatabaseError:
        log.warning("changes could not be looked at now; the next look will", exc_info=True)
        return
    if _open.running:
        node.refresh_from_db(fields=["spec", "generation"])


def _require_sane(report: NodeReport, node: Node) -> None:
    if report.node != node.pk:
        raise BadReport(f"This token is of node {node.pk}; the report is of node {report.node}.")
    if max(len(report.devices), len(report.samples)) > MAX_DEVICES or len(report.replicas) > MAX_REPLICAS:
        raise BadReport(f"A report holds at most {MAX_DEVICES} devices, a sample of each, and {MAX_REPLICAS} replicas.")
    if not report.instance or any(len(text) > 64 or "\x00" in text for text in (report.instance, report.boot)):
        raise BadReport("The agent's instance and boot are 1 to 64 plain characters.")
    if max(report.generation, report.seq) > LARGEST_COUNT:
        raise BadReport("No generation or sequence number is that large.")


def _is_repeated(report: NodeReport) -> bool:
    known = _written.get(report.node)
    return known is not None and known.boot == report.boot and report.seq <= known.heard_seq


def _write(report: NodeReport, node: Node, verdict: identity.Verdict, now: datetime) -> tuple[Node, bool]:
    """Write as little as there is to write; the node as it is afterwards, and whether there was news."""
    news, rest, at = _news(report), _rest(report), now.timestamp()
    known = _written.get(node.pk)
    is_known = (
        known is not None
        and known.last_seq == node.last_seq
        and known.news == news
        and known.devices.are(report.devices)
    )
    if is_known and verdict.silent_s is None and 0 <= at - known.at < HEARD_EVERY_S:
        known.heard_seq = report.seq
        return node, False
    if is_known and verdict.silent_s is None and known.rest == rest and not _skew_is_news(node, report, now):
        is_written, is_news = _touch(report, node, now), False
    else:
        left, applied = node.boot, _apply(report, now)
        is_written = is_news = applied is not None
        node = applied or node
        if is_written and verdict.is_new_boot:
            identity.remember_boot(node.pk, left)
    if is_written:
        heard.forget(node.pk)
        _written.pop(node.pk, None)
    if is_written and not weights.is_wanted(report, node):  # else the list comes next, with nothing else that is new
        _written[node.pk] = _Written(report.seq, report.boot, report.seq, Devices(report.devices), news, rest, at)
    return node, is_news


def _touch(report: NodeReport, node: Node, now: datetime) -> bool:
    """That the node was heard. The row decides: a newer report, or another agent, may have been first."""
    mine = Node.objects.filter(pk=node.pk, instance=report.instance, boot=report.boot, last_seq__lt=report.seq)
    return bool(mine.update(last_seen=now, last_seq=report.seq, clock_skew_s=_skew(report, now)))


@transaction.atomic
def _apply(report: NodeReport, now: datetime) -> Node | None:
    """Everything the report says, with the node locked; None where a newer report got there first."""
    node = Node.objects.select_for_update().get(pk=report.node)
    verdict = identity.judge(report, node=node, now=now)
    if verdict.is_late:
        return None
    events = [*_node_news(node, verdict, report, now)]
    _save_node(node, report, now)
    events += observed.devices(node, report)
    events += observed.replicas(node, report, now)
    for event in events:
        record(Actor.agent(node.name), event.verb, event.subject, after=event.after, detail=event.detail)
    weights.take(node, report)
    fetching.take(node, report)
    sleeping.take(node, report, now)
    is_measured = qualified.take(node, report, now)
    if is_measured or node.observed_generation > node.generation or node.spec is None:
        publish(node)
    return node


def _save_node(node: Node, report: NodeReport, now: datetime) -> None:
    values = {
        "instance": report.instance,
        "boot": report.boot,
        "last_seq": report.seq,
        "last_seen": now,
        "observed_generation": report.generation,
        "clock_skew_s": _skew(report, now),
        "period_s": report.period_s,
        "agent_version": observed.clean(report.agent_version, 64),
        "engine_version": observed.clean(report.engine_version, 64),
        "driver": observed.clean(report.driver, 255),
        "simulated": report.simulated,
    }
    if report.host is not None:
        values["memory_bytes"] = observed.whole(report.host.memory_bytes, observed.LARGEST_BIG)
        values["cpu_count"] = observed.whole(report.host.cpu_count)
    for column, value in values.items():
        setattr(node, column, value)
    node.save(update_fields=list(values))


def _node_news(node: Node, verdict: identity.Verdict, report: NodeReport, now: datetime) -> list[observed.Event]:
    events = []
    if verdict.is_takeover:
        after = {"instance": report.instance[:12], "silent_s": verdict.silent_s}
        detail = "Another agent home now speaks for this node; the one before had fallen silent."
        events.append(observed.Event("takeover", node, after, detail))
    elif verdict.is_new_boot and node.boot:
        events.append(observed.Event("agent-restarted", node, {"agent_version": report.agent_version[:64]}))
    if verdict.silent_s is not None:
        events.append(observed.Event("heard-again", node, {"silent_s": round(verdict.silent_s, 1)}))
    if _skew_is_news(node, report, now):
        skew = _skew(report, now)
        verb = "clock-skewed" if abs(skew) > SKEW_FLAG_S else "clock-right"
        events.append(observed.Event(verb, node, {"skew_s": round(skew, 1)}))
    return events


def _skew(report: NodeReport, now: datetime) -> float:
    return _skew_s(report, now.timestamp())


def _skew_s(report: NodeReport, at: float) -> float:
    """The agent's clock minus ours, for people; nothing is ever ordered by it."""
    return round(report.at - at, 3)


def _skew_is_news(node: Node, report: NodeReport, now: datetime) -> bool:
    was = abs(node.clock_skew_s or 0.0) > SKEW_FLAG_S
    return was != (abs(_skew(report, now)) > SKEW_FLAG_S)


def _newer_spec(report: NodeReport, node: Node) -> NodeSpec | None:
    return None if report.generation >= node.generation else spec_of(node)


def _news(report: NodeReport) -> bytes:
    """What must reach the database at once if it changed, besides devices. The keys of one report always come in one
    order."""
    health = {s.uuid: (s.health, s.health_detail, bool(s.foreign_pids)) for s in report.samples}
    return _encode(
        (
            report.instance, report.boot, report.generation, report.period_s, report.agent_version,
            report.engine_version, report.driver, report.simulated, health,
            (report.host.memory_bytes, report.host.cpu_count) if report.host else None,
            [_replica_news(status) for status in report.replicas],
            [(said.id, said.state) for said in report.qualifications],
            report.weights_mark, fetching.news(report), sleeping.news(report),
        )
    )  # fmt: skip


def _replica_news(status: ReplicaStatus) -> tuple[object, ...]:
    return (
        status.partition, status.deployment, status.role, status.generation, status.phase, status.pid, status.endpoint,
        status.restarts, status.engine_version,
    )  # fmt: skip


def _rest(report: NodeReport) -> bytes:
    told = [(status.message, status.ready_after_s, status.woken_after_s) for status in report.replicas]
    return _encode((told, [said.message for said in report.qualifications], report.fetch, sleeping.held(report)))
