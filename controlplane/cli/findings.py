"""What is wrong in a fleet, worst first, and where to look. Values in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from controlplane.cli.text import figure, span, word

Row = dict[str, Any]
_GONE = {"silent", "never_seen"}
_SET_ASIDE = {"cordoned", "draining", "drained", "revoked"}
_ON_ITS_WAY = {"pending", "starting", "draining", "stopping"}
_ROLES = ("prefill", "decode", "aggregated")
LENT = "lent"


@dataclass(frozen=True, slots=True)
class Finding:
    """`wrong`: somebody should act; else it only explains what one sees."""

    wrong: bool
    kind: str
    subject: str
    text: str
    look: str = ""

    def to_dict(self) -> Row:
        return {key: value for key, value in asdict(self).items() if key != "wrong"}


def findings(health: Row, live: Row, deployments: list[Row]) -> list[Finding]:
    found = [
        *_of_server(health, live),
        *_of_deployments(live, deployments),
        *(finding for node in live["nodes"] for finding in _of_node(node)),
    ]
    return sorted(found, key=lambda finding: not finding.wrong)  # stable: the server first, nodes by name


def _of_server(health: Row, live: Row) -> Iterator[Finding]:
    for part in ("database", "broker"):
        if health[part] != "up":
            yield Finding(True, f"{part}-down", "server", f"its {part} is down", "the server's log")
    brake = live.get("brake", {})  # a server of an earlier version has none
    if brake.get("on"):
        yield Finding(True, "brake", "server", f"nothing is rescheduled by itself: {brake['text']}", "those nodes")
    elif brake.get("tripped"):
        left = span(brake["released_until"] - live["at"])
        yield Finding(False, "brake-released", "server", f"the brake is released for {left}: {brake['text']}")
    if live["source"] != "live":
        text = "no live figures: the last recorded ones stand in"
        yield Finding(health["broker"] == "up", "no-live-figures", "server", text, "the server's log")


def engines(live: Row) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """How many are assigned and how many can be sent requests now, by deployment and role; of the role `lent` are those
    in slots that the pool lends."""
    assigned: Counter[tuple[str, str]] = Counter()
    ready: Counter[tuple[str, str]] = Counter()
    for node in live["nodes"]:
        for partition in node["partitions"]:
            if partition["deployment"] is not None:
                lent = partition.get("overflow", False)  # a server of an earlier version does not say
                key = (partition["deployment"]["name"], LENT if lent else partition["role"])
                assigned[key] += 1
                ready[key] += partition["confirmed"] and partition["status"] == "ready"
    return assigned, ready


def _of_deployments(live: Row, deployments: list[Row]) -> Iterator[Finding]:
    assigned, ready = engines(live)
    for deployment in deployments:
        yield from _of_deployment(deployment, assigned, ready)


def _of_deployment(
    deployment: Row, assigned: Counter[tuple[str, str]], ready: Counter[tuple[str, str]]
) -> Iterator[Finding]:
    name = deployment["name"]
    look = "forebay partitions --deployment " + name
    answering = sum(ready[name, role] for role in ("decode", "aggregated", LENT))
    if deployment["mode"] != "pooled" and any(assigned[name, role] for role in (*_ROLES, LENT)) and not answering:
        text = "serves nobody: no decode or aggregated engine is ready"
        yield Finding(True, "serves-nobody", name, text, look)
    elif assigned[name, "prefill"] and not ready[name, "prefill"]:
        yield Finding(True, "no-prefill", name, "no prefill engine is ready: others do their own prefill", look)
    for role in _ROLES:
        least = deployment[f"min_{role}"]
        if ready[name, role] < least:
            text = f"{ready[name, role]} {role} ready, and its minimum is {least}"
            yield Finding(True, "under-minimum", name, text, look)


def _of_node(node: Row) -> Iterator[Finding]:
    name, status = node["name"], node["status"]
    if status in _GONE:
        text = "never reported" if status == "never_seen" else f"silent, last report {span(node['age_s'])} ago"
        yield Finding(True, "node-silent", name, text, "its agent and its network")
    elif status in _SET_ASIDE:
        yield Finding(False, f"node-{status}", name, status)
    for gpu in node["gpus"]:
        yield from _of_gpu(name, gpu)
    for partition in node["partitions"]:
        yield from _of_partition(node, partition)


def _of_gpu(node: str, gpu: Row) -> Iterator[Finding]:
    subject, look = f"{node}/gpu{gpu['index']}", "the device on its host"
    if not gpu["present"]:
        yield Finding(True, "gpu-missing", subject, "is not in the node's last report", look)
    elif gpu["health"] != "ok":
        detail = f": {gpu['health_detail']}" if gpu["health_detail"] else ""
        yield Finding(True, f"gpu-{gpu['health']}", subject, f"is {gpu['health']}{detail}", look)
    if gpu["foreign"]:
        yield Finding(True, "gpu-foreign", subject, "a process of somebody else's is on it", look)


def _of_partition(node: Row, partition: Row) -> Iterator[Finding]:
    status, subject = partition["status"], f"{node['name']}/{partition['name']}"
    message = f": {partition['message']}" if partition["message"] else ""
    look = f"forebay logs {subject}"
    if status == "crash_looping":
        text = f"{word(status)}, {figure(partition['restarts'])} starts in a row failed{message}"
        yield Finding(True, "crash-looping", subject, text, look)
    elif status == "lost":
        yield Finding(True, "lost", subject, "its node is silent, so nothing is known of its engine", "its node")
    elif partition["deployment"] is not None and status in _ON_ITS_WAY and node["status"] not in _SET_ASIDE:
        yield Finding(
            False, f"partition-{status}", subject, f"{status} for {span(partition['since_s'])}{message}", look
        )
