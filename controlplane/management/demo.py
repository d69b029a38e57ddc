"""Serve one model on this host from nothing: register, deploy, split, assign, wait, ask.

It only ever fills what is empty. A host that already has partitions is an operator's, and is left as it is.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx
from django.conf import settings

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.health import is_confirmed
from controlplane.domain.types import Phase
from controlplane.fleet import services as fleet
from controlplane.fleet.errors import FleetError
from controlplane.fleet.facts import partition_view
from controlplane.fleet.models import Deployment, Gpu, Node, Partition, RegisteredModel, Role
from controlplane.management.demo_models import DemoModel
from controlplane.management.machine import Machine
from controlplane.management.steps import Screen, Step, StepFailed

ACTOR = Actor.system("make run")
READY_S = 600.0
# The gateway tries both engines before it sends clients there, each trial with a deadline of its own; where the machine
# has other work, the first of them come too late. Measured so: 45 s until it was content.
ASK_S = 120.0
# More tokens than one KV block (32): a shorter prompt leaves nothing to transfer.
WARMING = "A forebay is the pool that holds water ready in front of a turbine, so that no demand finds it dry. " * 3
REASON = "first deployment on this machine"


def set_up(model: DemoModel, folder: Path, node: Node) -> None:
    """The deployment, and on a host without partitions its assignment."""
    try:
        _set_up(model, folder, node)
    except FleetError as error:
        fix = " ".join(problem.fix for problem in error.problems)
        raise StepFailed(f"The rules refuse it: {error}", fix=fix) from error


def _set_up(model: DemoModel, folder: Path, node: Node) -> None:
    registered = RegisteredModel.objects.filter(source=str(folder)).first() or fleet.register_model(
        name=model.folder, source=str(folder), actor=ACTOR
    )
    deployment = Deployment.objects.filter(name=model.deployment).first() or fleet.create_deployment(
        name=model.deployment, model_id=registered.pk, actor=ACTOR
    )
    if not node.partitions.exists():
        _assign(node, deployment)


def assigned(node: Node) -> list[Partition]:
    return list(node.partitions.filter(deployment__isnull=False).select_related("deployment").order_by("name"))


def wait_confirmed(node: Node, machine: Machine, step: Step, *, within_s: float = READY_S) -> None:
    """Until every assigned partition of the node is confirmed; its log when one is crash-looping."""
    deadline = time.monotonic() + within_s
    while waiting := [p for p in assigned(node) if not is_confirmed(partition_view(p))]:
        step.note(", ".join(f"{p.name} {p.role}: {_doing(p)}" for p in waiting))
        broken = next((p for p in waiting if p.restarts >= 3), None)
        if broken or time.monotonic() > deadline:
            raise _not_ready(broken or waiting[0], machine)
        time.sleep(0.25)
    step.note(", ".join(f"{p.name} {p.role}" for p in assigned(node)))


def _doing(partition: Partition) -> str:
    """An engine that never ran is not one that exited: its agent says what it waits for."""
    if partition.phase in ("", Phase.EXITED) and not partition.restarts:
        return f"pending ({partition.message})" if partition.message else "pending"
    return partition.phase


def is_served(model: DemoModel, node: Node) -> bool:
    return any(partition.deployment.name == model.deployment for partition in assigned(node))


def warm(model: DemoModel, key: str, machine: Machine, step: Step) -> None:
    """One real request through the gateway: the first between two engines pays for their handshake. Another text than
    the question that people are given, whose KV must not lie in a cache already."""
    roles = {partition.role for partition in Partition.objects.filter(deployment__name=model.deployment)}
    path = "two_step" if {Role.PREFILL, Role.DECODE} <= roles else "aggregated"
    body = {"model": model.deployment, "prompt": WARMING, "max_tokens": 8, "temperature": 0}
    deadline = time.monotonic() + ASK_S
    while not _is_by((reply := _post(machine, body, key)), path):
        if time.monotonic() > deadline:
            raise StepFailed(f"The gateway answers {reply.status_code} by {_path(reply)}: {reply.text[:500]}")
        time.sleep(0.5)
    step.note(f"{_path(reply)}: {reply.headers.get('server-timing', '')}")


def _is_by(reply: httpx.Response, path: str) -> bool:
    """Until the gateway has read that both engines are ready, it sends requests to the decode engine alone."""
    return reply.status_code == 200 and _path(reply) == path


def _path(reply: httpx.Response) -> str:
    return reply.headers.get("x-forebay-path", "no path")


def _post(machine: Machine, body: dict[str, object], key: str) -> httpx.Response:
    try:
        return httpx.post(
            f"{machine.gateway_url}/v1/completions",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60.0,
        )
    except httpx.HTTPError as error:
        return httpx.Response(503, text=str(error))


def _assign(node: Node, deployment: Deployment) -> None:
    """Two devices: one prefill, one decode. One device: both phases in one engine."""
    indices = list(Gpu.objects.filter(node=node, present=True).order_by("index").values_list("index", flat=True)[:2])
    if not indices:
        raise StepFailed(f"{node.name} reports no device.", fix="see its page under Nodes")
    partitions = fleet.split_node(node.pk, groups=[[index] for index in indices], actor=ACTOR)
    roles = [Role.PREFILL, Role.DECODE] if len(partitions) == 2 else [Role.AGGREGATED]
    for partition, role in zip(partitions, roles, strict=True):
        fleet.assign(partition.pk, deployment_id=deployment.pk, role=role, actor=ACTOR, reason=REASON)


def _not_ready(partition: Partition, machine: Machine) -> StepFailed:
    logs = sorted((machine.agent_home / "logs").glob(f"*{partition.pk}*.log"), key=lambda path: path.stat().st_mtime)
    last = AuditEvent.objects.filter(subject_type="partition", subject_id=partition.pk, source="agent").first()
    why = partition.message or (last.detail.splitlines()[-1] if last and last.detail else "")
    return StepFailed(
        f"{partition} is not ready: {partition.phase or 'pending'}, {partition.restarts} restarts. {why}".strip(),
        fix="read the engine's log; free memory if it was killed for it; then make run again",
        log=logs[-1] if logs else None,
    )


def show_usable(screen: Screen, model: DemoModel, key: str) -> None:
    """The command that streams an answer."""
    screen.say(
        f"\nAsk it:\n\n"
        f"  curl -N {settings.GATEWAY_URL}/v1/chat/completions \\\n"
        f'    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\\n'
        f'    -d \'{{"model": "{model.deployment}", "stream": true, "temperature": 0, "max_tokens": 48,\n'
        f'         "messages": [{{"role": "user", "content": "{model.question}"}}]}}\'\n'
    )
