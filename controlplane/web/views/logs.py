"""One page for every log there is: of replicas, of agents, of the control plane's own processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from controlplane.audit import roles
from controlplane.fleet.models import Node, Partition
from controlplane.telemetry import process_log, valkey
from controlplane.web.access import needs
from controlplane.web.answers import show

SHOWN = 60  # of a kind; who has more searches for it


@dataclass(frozen=True, slots=True)
class Log:
    """`key` is how the address names it; `url` where REST gives it."""

    key: str
    name: str
    of: str
    url: str
    previous: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    logs: list[Log] = field(default_factory=list)
    count: int = 0
    missing: str = ""  # why there are none


@require_GET
@needs("view")
def logs(request: HttpRequest) -> HttpResponse:
    words = request.GET.get("q", "").strip()[:100]
    groups = list(_groups(words, system=roles.allows(request.user, "log.system")))
    key = request.GET.get("of", "")
    listed = {log.key: log for group in groups for log in group.logs}
    chosen = listed.get(key) or _found(request, key) or next(iter(listed.values()), None)
    context: dict[str, Any] = {
        "groups": groups,
        "words": words,
        "chosen": chosen,
        "unknown": bool(key) and chosen and chosen.key != key,
    }
    return show(request, "logs/page.html", context)


def _groups(words: str, *, system: bool) -> Iterator[Group]:
    yield _of_rows("Replicas", _partitions(words), _of_partition)
    if system:
        yield _of_rows("Agents", Node.objects.defer("spec").filter(name__icontains=words), _of_node)
        yield _processes(words)


def _of_rows(name: str, rows: QuerySet[Any], made: Any) -> Group:
    found = [made(row) for row in rows[:SHOWN]]
    return Group(name, found, len(found) if len(found) < SHOWN else rows.count(), "" if found else "None by that name.")


def _partitions(words: str) -> QuerySet[Partition]:
    rows = Partition.objects.exclude(deployment=None).select_related("node", "deployment").defer("node__spec")
    parts = [Q(node__name__icontains=word) | Q(name__icontains=word) | Q(deployment__name__icontains=word)
             for word in words.replace("/", " ").split()]  # fmt: skip
    return rows.filter(*parts).order_by("node__name", "name")


def _processes(words: str) -> Group:
    try:
        found = [one for one in process_log.processes(time.time()) if words.lower() in one.name.lower()]
    except valkey.Unreachable:
        return Group("Control plane", missing="The broker does not answer, and logs pass through it.")
    return Group("Control plane", [_of_process(one.name) for one in found], len(found), "" if found else "None heard.")


def _found(request: HttpRequest, key: str) -> Log | None:
    """One that is not in the list: there are more than it shows."""
    kind, _, name = key.partition(":")
    system = roles.allows(request.user, "log.system")
    if kind == "partition" and name.isdecimal():
        row = (
            Partition.objects.select_related("node", "deployment").defer("node__spec").filter(pk=int(name[:18])).first()
        )
        return _of_partition(row) if row else None
    if kind == "node" and name.isdecimal() and system:
        node = Node.objects.defer("spec").filter(pk=int(name[:18])).first()
        return _of_node(node) if node else None
    return None


def _of_partition(row: Partition) -> Log:
    of = f"{row.role} of {row.deployment.name}" if row.deployment else "nothing assigned"
    of += ", simulated" if row.node.simulated else ""
    return Log(f"partition:{row.pk}", str(row), of, reverse("api:partition-logs", args=[row.pk]), previous=True)


def _of_node(row: Node) -> Log:
    return Log(
        f"node:{row.pk}",
        row.name,
        "agent, simulated" if row.simulated else "agent",
        reverse("api:node-logs", args=[row.pk]),
    )


def _of_process(name: str) -> Log:
    kind, _, place = name.partition("@")
    return Log(f"process:{name}", kind, place, reverse("api:process-logs", args=[name]))
