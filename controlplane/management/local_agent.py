"""This host's own agent: joined once as any node is, then run as a part; its engines stopped at the end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.fleet import services as fleet
from controlplane.fleet.models import Node
from controlplane.management.machine import Machine
from controlplane.management.steps import Step, StepFailed

ACTOR = Actor.system("make run")
STOP_ENGINES_S = 180.0


def joined(machine: Machine, step: Step) -> Node:
    """This host's node, joined if it is not yet. It joins again where web process or broker have moved, as to another
    port: its agent would look for them where they were. Its engines and assignments stay; where the host's own address
    is another one, engines that were kept are ended, for they listen at the old one."""
    known = node(machine)
    if known is not None and knows_where(machine):
        return known
    if _has_moved(machine):
        step.note(f"{machine.address} instead of {_config(machine)['address']}: ending engines that listen there")
        stop_engines(machine, step)
    return join(machine, known.name if known else _host_name())


def node(machine: Machine) -> Node | None:
    """The node whose identity the agent's home holds, if this control plane knows it."""
    digest = hashlib.sha256(str(_config(machine).get("node_token", "")).encode()).hexdigest()
    return Node.objects.filter(token_hash=digest, revoked=False).first()


def knows_where(machine: Machine) -> bool:
    """Whether the agent's home names web process and host as they are now, and no other broker: without any, reports
    do."""
    config = _config(machine)
    brokers = {"", _place(settings.NODE_BROKER_URL)}
    here = config.get("url") == machine.web_url and config.get("address") == machine.address
    return here and _place(str(config.get("broker_url", ""))) in brokers


def join(machine: Machine, name: str) -> Node:
    """Join this host with a token made for it; the web process must answer."""
    _, token = fleet.issue_join_token(node_name=name, ttl_s=300, actor=ACTOR)
    log = machine.logs / "join.log"
    command = [
        sys.executable, "-m", "workers", "join", machine.web_url, "--name", name,
        "--address", machine.address, "--home", str(machine.agent_home), "--no-run",
    ]  # fmt: skip
    # The token goes by the environment, so that no other user of this host reads it off the process list.
    done = _run(command, log, {"FOREBAY_JOIN_TOKEN": token}, within_s=60.0)
    found = node(machine)
    if done or found is None:
        raise StepFailed(
            "This host's agent could not join.",
            fix=f"read its log above, and {machine.logs / 'web.log'}",
            log=log,
        )
    return found


def has_reported(joined: Node, since: float) -> bool:
    """Whether a report came after `since` (unix seconds)."""
    seen = Node.objects.values_list("last_seen", flat=True).get(pk=joined.pk)
    return seen is not None and seen.timestamp() > since


def stop_engines(machine: Machine, step: Step) -> None:
    """End every engine of this host's agent, which must not be running any more."""
    command = [sys.executable, "-m", "workers", "stop", "--home", str(machine.agent_home)]
    log = machine.logs / "stop.log"
    if _run(command, log, {}, within_s=STOP_ENGINES_S):
        raise StepFailed("Not every engine could be stopped.", fix=f"run: {' '.join(command)}", log=log)
    step.note("")


def now() -> float:
    return timezone.now().timestamp()


def _has_moved(machine: Machine) -> bool:
    """Whether the agent's home says that engines are reached at another address than the host has now."""
    return _config(machine).get("address", machine.address) != machine.address


def _place(url: str) -> str:
    """Host and port."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _config(machine: Machine) -> dict[str, Any]:
    """Empty where there is none."""
    try:
        found = json.loads((machine.agent_home / "agent.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _host_name() -> str:
    """This host's name as a node name may be."""
    short = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower()).strip(".-")
    return short[:63].rstrip(".-") or "this-host"


def _run(command: list[str], log: Path, more: dict[str, str], *, within_s: float) -> int:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("wb") as out:
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env=os.environ | more, timeout=within_s, check=False, start_new_session=True,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return 124
