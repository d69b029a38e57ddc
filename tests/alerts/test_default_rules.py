"""Each default rule, from what a node, a gateway or the database says to a letter and a call, and back: once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from controlplane.alerts import courier, services
from controlplane.alerts.models import Alert, AlertTarget
from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor, record
from controlplane.domain.alert_rules import GIB, KINDS
from controlplane.fleet import verified
from controlplane.fleet.models import Activation, Deployment, GatewayBeat, Node, Partition, PoolAim
from controlplane.gateway.models import RequestRecord
from controlplane.teams import services as teams
from controlplane.teams.models import TeamSpend
from controlplane.telemetry.models import EngineSample as EngineRow
from tests.alerts.conftest import Stage
from tests.alerts.sinks import MailSink, WebSink
from tests.factories import make_deployment, make_node, make_partition
from tests.fleet.reporting import device_of, status_of
from workers.contract import DeviceSample, EngineSample, HostSample

Fields = dict[str, Any]


@dataclass
class Play:
    """What a scene may use."""

    stage: Stage
    node: Node
    partition: Partition

    def look(self, times: int = 1, *, every_s: float = 10.0, quiet: bool = False, **fields: Any) -> None:
        for _ in range(times):
            self.stage.look(*([] if quiet else [(self.node, fields)]), after_s=every_s)

    def sampled(self, **figures: Any) -> Fields:
        uuid = self.node.gpus.get().uuid
        return {"samples": (DeviceSample(uuid=uuid, **figures),)}

    def engine(self, phase: str = "ready", **fields: Any) -> Fields:
        self.partition.refresh_from_db()
        return {"replicas": (status_of(self.partition, phase, **fields),)}

    def requests(self, count: int, *, age_s: float, **columns: Any) -> None:
        at = self.stage.now - timedelta(seconds=age_s)
        row = {"at": at, "deployment": "chat", "kind": "chat", "outcome": "ok", "status": 200, "path": "direct"}
        RequestRecord.objects.bulk_create(
            RequestRecord(request_id=f"r{n}", total_ms=100.0, **(row | columns)) for n in range(count)
        )


Scene = Callable[[Play], Iterator[None]]  # brings it about, yields, and undoes it


def silent(play: Play) -> Iterator[None]:
    play.look(2, every_s=16, quiet=True)
    yield
    play.look(3)


def lost(play: Play) -> Iterator[None]:
    play.look(2, **play.sampled(health="lost", health_detail="XID 79"))
    yield
    play.look(2, every_s=30, **play.sampled())


def figures(times: int, bad: Fields, good: Fields) -> Scene:
    def scene(play: Play) -> Iterator[None]:
        play.look(times, every_s=60, **play.sampled(**bad))
        yield
        play.look(2, every_s=30, **play.sampled(**good))

    return scene


def crash_looping(play: Play) -> Iterator[None]:
    play.look(**play.engine("exited", restarts=3, message="out of memory"))
    yield
    play.look(2, every_s=30, **play.engine())


def slo(column: str) -> Scene:
    def scene(play: Play) -> Iterator[None]:
        play.requests(20, age_s=1800, **{column: 900.0})
        play.requests(20, age_s=1, **{column: 900.0})
        play.look(2, every_s=60)
        yield
        for _ in range(3):
            play.requests(200, age_s=-100, **{column: 50.0})
            play.look(every_s=120)

    return scene


def kv_full(play: Play) -> Iterator[None]:
    play.look(2, every_s=120, **play.engine(sample=EngineSample(kv_usage=0.97)))
    yield
    play.look(2, every_s=30, **play.engine(sample=EngineSample(kv_usage=0.4)))


def kv_transfers(play: Play) -> Iterator[None]:
    at = play.stage.now - timedelta(seconds=5)
    EngineRow.objects.create(partition=play.partition, at=at, kv_failures_ps=0.3, covered_s=10.0)
    record(Actor.agent("n"), "kv-expired", play.partition)
    play.look()
    assert Alert.objects.get(rule="kv-transfers").value == 3
    yield
    play.look(2, every_s=300)


def disk(play: Play) -> Iterator[None]:
    play.look(2, every_s=60, host=HostSample(disk_free_bytes=20 * GIB))
    yield
    play.look(2, every_s=30, host=HostSample(disk_free_bytes=200 * GIB))


def version(play: Play) -> Iterator[None]:
    play.look(2, every_s=600, agent_version="0.0.9")
    yield
    play.look(2, every_s=30)


def skew(play: Play) -> Iterator[None]:
    for _ in range(2):
        play.look(every_s=30, at=play.stage.now.timestamp() + 30 + 40)
    yield
    play.look(2, every_s=30)


def gateway(play: Play) -> Iterator[None]:
    verified.beat("gw-1:8001", "", play.stage.now)
    play.look(2)
    yield
    for _ in range(2):
        verified.beat("gw-1:8001", "", play.stage.now + timedelta(seconds=10))
        play.look()


def brake(play: Play) -> Iterator[None]:
    others = [make_node() for _ in range(3)]
    play.look(2)
    yield
    for _ in range(10):
        for node in others:
            play.stage.report(node)
        play.look()


def budget(limit: str) -> Scene:
    def scene(play: Play) -> Iterator[None]:
        team = teams.create_team(name="search", **{limit: Decimal(100)}, actor=Actor.system("test"))
        month = play.stage.now.date().replace(day=1)
        TeamSpend.objects.create(team=team, month=month, spent=Decimal("99.99"))
        play.look()
        TeamSpend.objects.update(spent=Decimal("100.01"))
        play.look()
        yield
        teams.change_team(team.pk, **{limit: Decimal(200)}, actor=Actor.system("test"))
        play.look(2, every_s=30)

    return scene


def asked_for(play: Play, state: str, **columns: Any) -> Activation:
    """Of a deployment that nothing serves."""
    deployment, at = Deployment.objects.get(name="chat"), play.stage.now
    row = {"cause": "request", "state": state, "asked_at": at, "wanted_at": at, "message": "no such weights"}
    return Activation.objects.create(deployment=deployment, **(row | columns))


def pool_short(play: Play) -> Iterator[None]:
    """One slot is there and two are wanted; then there are two."""
    make_deployment("sporadic", mode="pooled")
    PoolAim.objects.create(pk=1, keep_alive_s=300, slots=2, reason="95% sure for the next 10 min", at=play.stage.now)
    slot = make_partition(play.node, name="p1")
    Partition.objects.filter(pk=slot.pk).update(pool=True)
    play.look(2, every_s=121)
    yield
    Partition.objects.filter(pk=make_partition(play.node, name="p2").pk).update(pool=True)
    play.look(2, every_s=31)


def pool_waiting(play: Play) -> Iterator[None]:
    row = asked_for(play, "waiting", reason="every slot is busy")
    play.look(2, every_s=31)
    yield
    Activation.objects.filter(pk=row.pk).update(state="ready", ended_at=play.stage.now)
    play.look(2, every_s=31)


def activation_failing(play: Play) -> Iterator[None]:
    for _ in range(2):
        asked_for(play, "failed", ended_at=play.stage.now)
    play.look(2)
    yield
    asked_for(play, "ready", ended_at=play.stage.now)
    play.look(2)


SCENES: dict[str, tuple[Scene, str]] = {
    "node-silent": (silent, "n"),
    "gpu-lost": (lost, "n/gpu0"),
    "gpu-ecc": (figures(1, {"ecc_uncorrected": 2}, {"ecc_uncorrected": 0}), "n/gpu0"),
    "gpu-throttling": (figures(2, {"throttle": "HwThermalSlowdown"}, {"throttle": "SwPowerCap"}), "n/gpu0"),
    "gpu-hot": (figures(2, {"temperature_c": 91.0}, {"temperature_c": 60.0}), "n/gpu0"),
    "gpu-foreign": (figures(2, {"foreign_pids": (77,)}, {}), "n/gpu0"),
    "engine-crash-looping": (crash_looping, "n/p0"),
    "slo-ttft": (slo("ttft_ms"), "chat"),
    "slo-itl": (slo("itl_ms"), "chat"),
    "kv-full": (kv_full, "n/p0"),
    "kv-transfers": (kv_transfers, "n/p0"),
    "disk-low": (disk, "n"),
    "agent-version": (version, "n"),
    "clock-skew": (skew, "n"),
    "gateway-gone": (gateway, "gw-1:8001"),
    "brake-on": (brake, "the brake"),
    "budget-soft": (budget("budget_soft"), "search"),
    "budget-hard": (budget("budget_hard"), "search"),
    "pool-short": (pool_short, "the pool"),
    "pool-waiting": (pool_waiting, "chat"),
    "activation-failing": (activation_failing, "chat"),
}


@pytest.fixture
def play(stage: Stage) -> Play:
    node = make_node("n", agent_version="0.1.0")
    deployment = make_deployment("chat", slo_ttft_ms=500, slo_itl_ms=500)
    partition = make_partition(node, deployment=deployment, role="aggregated", name="p0")
    GatewayBeat.objects.all().delete()
    made = Play(stage, node, partition)
    made.look(2, **made.engine())
    return made


def test_every_rule_has_a_scene() -> None:
    assert set(SCENES) == set(KINDS)


@pytest.mark.parametrize("rule", SCENES)
def test_a_default_rule_fires_and_clears_and_is_told_once_of_each(
    rule: str, play: Play, hook: AlertTarget, web: WebSink, post: MailSink, actor: Actor
) -> None:
    services.create_target(name="mail", kind="email", address="a@b.example", min_severity="info", actor=actor)
    scene, subject = SCENES[rule]
    steps = scene(play)
    next(steps)
    (alert,) = Alert.objects.filter(rule=rule, subject_name=subject, state="firing")
    for _ in steps:
        pass
    courier.deliver_due(play.stage.now + timedelta(seconds=31))
    alert.refresh_from_db()
    assert (alert.state, alert.resolved_at is not None) == ("resolved", True)
    mine = [told for told in web.transitions if told[1] == rule]
    assert mine == [("fired", rule, subject), ("resolved", rule, subject)]
    others = {told[1] for told in web.transitions} - {rule}
    assert others == ({"node-silent"} if rule == "brake-on" else set()), "nothing else is wrong"
    told = [line for line in post.lines if f": {KINDS[rule].title}, {subject}." in line]
    assert [line.split(":")[0] for line in told] == [alert.severity.capitalize(), "Resolved"]
    verbs = [e.verb for e in AuditEvent.objects.filter(after__rule=rule).order_by("id")]
    assert verbs == ["alert-fired", "alert-resolved"]


def test_what_is_unknown_neither_fires_nor_clears(play: Play) -> None:
    play.look(2, every_s=60, **play.sampled(temperature_c=95.0))
    play.look(3, quiet=True)  # 30 s without a report
    play.look(3, every_s=60, **play.sampled())  # the sensor says nothing
    hot = Alert.objects.get(rule="gpu-hot")
    assert (hot.state, hot.value) == ("firing", 95.0)
    play.look(2, every_s=30, **play.sampled(temperature_c=50.0))
    hot.refresh_from_db()
    assert hot.state == "resolved"


def test_a_gpu_that_is_gone_from_the_reports_is_lost(play: Play) -> None:
    gpu = play.node.gpus.get()
    play.look(3, devices=(), samples=())
    assert Alert.objects.get(state="firing").subject_name == "n/gpu0"
    play.look(2, every_s=30, devices=(device_of(gpu),), samples=(DeviceSample(uuid=gpu.uuid),))
    assert Alert.objects.get().state == "resolved"


@pytest.mark.parametrize(("hard", "said"), [(None, "Its keys still work."), (100, "its keys are refused")])
def test_a_soft_limit_does_not_say_that_keys_work_which_the_hard_one_stops(
    play: Play, hard: int | None, said: str
) -> None:
    limits = {"budget_soft": Decimal(50), "budget_hard": hard and Decimal(hard)}
    team = teams.create_team(name="search", **limits, actor=Actor.system("test"))
    TeamSpend.objects.create(team=team, month=play.stage.now.date().replace(day=1), spent=Decimal("100.01"))
    play.look()
    assert said in Alert.objects.get(rule="budget-soft").text
