"""Faults of a simulated fleet, put by their lines: each makes its default alert alone, and taking it back ends it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from controlplane.alerts.models import AlertTarget
from controlplane.fleet import reports
from controlplane.fleet.models import Node
from controlplane.management import simulating
from controlplane.telemetry import services as telemetry
from tests.alerts.conftest import Stage
from tests.alerts.sinks import WebSink
from workers.contract import Phase
from workers.simulated_fleet.faults import change
from workers.simulated_fleet.host import Curve, Host
from workers.simulated_fleet.player import Fleet, Seat

MADE = {
    "silence sim-0001": ("node-silent", "sim-0001"),
    "lose sim-0002/0": ("gpu-lost", "sim-0002/gpu0"),
    "ecc sim-0002/1": ("gpu-ecc", "sim-0002/gpu1"),
    "throttle sim-0002/2": ("gpu-throttling", "sim-0002/gpu2"),
    "hot sim-0002/3": ("gpu-hot", "sim-0002/gpu3"),
    "foreign sim-0003/0": ("gpu-foreign", "sim-0003/gpu0"),
    "crash-loop sim-0003/p1": ("engine-crash-looping", "sim-0003/p1"),
    "kv-full sim-0003/p2": ("kv-full", "sim-0003/p2"),
    "disk-low sim-0004": ("disk-low", "sim-0004"),
    "old-version sim-0004": ("agent-version", "sim-0004"),
    "skew sim-0004 40": ("clock-skew", "sim-0004"),
}


class Played:
    """Four nodes whose reports take both roads; each look is ten seconds later."""

    def __init__(self, stage: Stage, home: Path) -> None:
        self.stage = stage
        self.seats = [Seat(**seat) for seat in simulating.join(4)]  # type: ignore[arg-type]
        self.fleet = Fleet(self.seats, gpus=4, curve=Curve("low", 1))
        self.look()
        simulating.furnish([seat.node for seat in self.seats], 1, home)
        self.look(4)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            for host in self.fleet.hosts.values():
                self._report(host)
            self.stage.look()

    def say(self, *lines: str) -> None:
        for line in lines:
            self.fleet.put(change(self.fleet.faults, line, self.fleet.hosts))

    def _report(self, host: Host) -> None:
        now = self.stage.now
        report = host.report(now.timestamp())
        if not host.is_silent:
            node = Node.objects.get(pk=host.node)
            host.take(reports.receive(report, node=node, now=now))
            telemetry.take(node, report, now)


def test_each_fault_makes_its_alert_once_and_no_other(
    stage: Stage, hook: AlertTarget, web: WebSink, tmp_path: Path
) -> None:
    played = Played(stage, tmp_path)
    phases = {r.phase for host in played.fleet.hosts.values() for r in host.report(stage.now.timestamp()).replicas}
    assert phases == {Phase.READY}
    played.look(3)
    assert not web.transitions, "all is well"
    played.say(*MADE)
    played.look(64)  # an agent of another version is told of after ten minutes
    assert Counter(web.transitions) == Counter(("fired", *told) for told in MADE.values())
    played.say("clear")
    played.look(20)
    resolved = [told for told in web.transitions if told[0] == "resolved"]
    assert Counter(resolved) == Counter(("resolved", *told) for told in MADE.values())
    assert len(web.transitions) == 2 * len(MADE)
    assert all(alert["labels"]["simulated"] == "true" for body in web.bodies for alert in body["alerts"])
