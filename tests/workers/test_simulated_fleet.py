"""One simulated node over an hour of its own time: it obeys its spec, and each fault shows and clears."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest

from workers.contract import NodeReport, NodeSpec, Phase, ReplicaSpec, ReportReply, Role
from workers.simulated_fleet.faults import BadFault, Fault, change, parse
from workers.simulated_fleet.host import Curve, Host
from workers.simulated_fleet.load import demand
from workers.simulated_fleet.player import Seat, Told, _Line

AT = 1_800_000_000.0


class Played:
    def __init__(self) -> None:
        self.host, self.now = Host(7, "sim-0001", 2, Curve(shape="day", seed=1)), AT

    def take(self, generation: int, *replicas: ReplicaSpec) -> None:
        self.host.take(ReportReply(at=self.now, spec=NodeSpec(node=7, generation=generation, replicas=replicas)))

    def run(self, seconds: int) -> NodeReport:
        for _ in range(seconds):
            self.now += 1
            report = self.host.report(self.now)
        return msgspec.json.decode(msgspec.json.encode(report), type=NodeReport)  # every bound of the contract holds

    def fault(self, *lines: str) -> None:
        self.host.faults = frozenset(parse(line) for line in lines)


def spec(role: Role = Role.DECODE, generation: int = 1) -> ReplicaSpec:
    return ReplicaSpec(
        partition=3, name="p0", deployment="chat", role=role, gpus=("SIM-sim-0001-0",), model="/m",
        served_names=("chat",), generation=generation,
    )  # fmt: skip


@pytest.fixture
def played() -> Played:
    return Played()


def test_a_replica_starts_serves_and_is_labelled_simulated(played: Played) -> None:
    played.take(1, spec())
    assert [r.phase for r in played.run(2).replicas] == [Phase.STARTING]
    report = played.run(20)
    (replica,) = report.replicas
    assert (replica.phase, replica.generation, replica.engine_version) == (Phase.READY, 1, "simulated")
    assert report.simulated and {device.kind for device in report.devices} == {"simulated"}
    busy, idle = report.samples
    assert busy.utilization > idle.utilization == 0 and busy.power_w > idle.power_w
    before, after = replica.sample, played.run(60).replicas[0].sample
    assert after.generation_tokens_total > before.generation_tokens_total > 0
    assert after.itl_count > before.itl_count


def test_a_replica_that_is_no_longer_wanted_drains_and_ends(played: Played) -> None:
    played.take(1, spec())
    played.run(20)
    played.take(2)
    assert [r.phase for r in played.run(1).replicas] == [Phase.DRAINING]
    assert played.run(10).replicas == ()


def test_a_request_that_comes_to_a_draining_engine_which_was_idle_is_answered_before_it_ends(played: Played) -> None:
    played.take(1, spec())
    played.run(20)
    played.take(2)
    played.run(2)
    with played.host._processes[3].engine.answering():
        assert [r.phase for r in played.run(20).replicas] == [Phase.DRAINING]
    assert played.run(10).replicas == ()


def test_a_role_change_relabels_the_process(played: Played) -> None:
    played.take(1, spec())
    pid = played.run(20).replicas[0].pid
    played.take(2, spec(Role.PREFILL, 2))
    (replica,) = played.run(1).replicas
    assert (replica.role, replica.phase, replica.pid, replica.generation) == (Role.PREFILL, Phase.READY, pid, 2)


def test_a_crash_loop_counts_its_restarts_and_heals(played: Played) -> None:
    played.take(1, spec())
    played.run(20)
    played.fault("crash-loop sim-0001/p0")
    (replica,) = played.run(40).replicas
    assert replica.restarts >= 3
    played.fault()
    (replica,) = played.run(200).replicas
    assert (replica.phase, replica.restarts) == (Phase.READY, 0)


def test_faults_of_devices_and_of_the_host_show_and_clear(played: Played) -> None:
    played.fault("hot sim-0001/0", "throttle sim-0001/0", "ecc sim-0001/0", "lose sim-0001/1", "skew sim-0001 40",
                 "disk-low sim-0001")  # fmt: skip
    report = played.run(3)
    ill, lost = report.samples
    assert (ill.temperature_c, ill.throttle, ill.ecc_uncorrected, lost.health) == (93.0, "HwThermalSlowdown", 2, "lost")
    assert report.at - played.now == 40 and report.host.disk_free_bytes < 20 * 2**30
    played.fault()
    report = played.run(1)
    assert [(s.health, s.throttle, s.ecc_uncorrected) for s in report.samples] == [("ok", "", 0)] * 2
    assert report.at == played.now


def test_expired_kv_counts_on_the_prefill_engine(played: Played) -> None:
    played.take(1, spec(Role.PREFILL))
    assert played.run(20).replicas[0].sample.kv_expired_total == 0
    played.fault("expire-kv sim-0001/p0")
    assert played.run(5).replicas[0].sample.kv_expired_total == 5


def test_slow_engines_and_failed_transfers_show_in_their_totals(played: Played) -> None:
    played.take(1, spec())
    before = played.run(20).replicas[0].sample
    played.fault("slow-first sim-0001/p0 2", "slow-tokens sim-0001/p0 0.3", "fail-kv sim-0001/p0")
    after = played.run(60).replicas[0].sample
    assert after.nixl_failures_total == 60
    for sum_s, count, least in (("ttft_sum_s", "ttft_count", 2.0), ("itl_sum_s", "itl_count", 0.3)):
        gone, many = (getattr(after, name) - getattr(before, name) for name in (sum_s, count))
        assert gone / many > least


def test_an_old_agent_and_a_foreign_process_are_told(played: Played) -> None:
    played.fault("old-version sim-0001", "foreign sim-0001/1")
    ill = played.run(1)
    assert (ill.agent_version, [len(s.foreign_pids) for s in ill.samples]) == ("0.0.1", [0, 1])
    played.fault()
    well = played.run(1)
    assert well.agent_version != "0.0.1" and not well.samples[1].foreign_pids


def test_a_fault_is_put_and_cleared_by_lines() -> None:
    nodes = ["sim-0001", "sim-0002"]
    one = change(frozenset(), "silence sim-0001", nodes)
    both = change(one, "hot sim-0002/1", nodes)
    assert both == {Fault("silence", "sim-0001"), Fault("hot", "sim-0002", "1")}
    assert change(both, "clear sim-0002", nodes) == one
    assert change(both, "clear", nodes) == frozenset()


@pytest.mark.parametrize(
    "line",
    [
        "melt sim-0001",
        "hot sim-0001",
        "hot sim-0001/x",
        "skew sim-0001 soon",
        "silence x",
        "slow-first sim-0001/p0 -1",
        "skew sim-0001 nan",
    ],
)
def test_a_line_that_is_no_fault_says_what_would_be(line: str) -> None:
    with pytest.raises(BadFault, match=r"nothing was changed|for example"):
        change(frozenset(), line, ["sim-0001"])


def test_the_curve_is_the_same_for_the_same_seed_and_never_below_nothing() -> None:
    curve = [demand("burst", "chat", AT + 60 * minute, seed=4) for minute in range(1440)]
    assert curve == [demand("burst", "chat", AT + 60 * minute, seed=4) for minute in range(1440)]
    assert 0 <= min(curve) < 0.2 and max(curve) > 1


def test_an_answer_that_comes_in_chunks_is_taken_once_it_is_whole(played: Played) -> None:
    seat, told = Seat(node=7, name="sim-0001", token="t", instance="i"), Told()
    line = _Line(seat, played.host, told, ("127.0.0.1", 1), deque())
    body = msgspec.json.encode(ReportReply(at=AT, spec=NodeSpec(node=7, generation=5)))
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    line.data_received(head + b"5\r\n%b\r\n" % body[:5])
    assert told.answered == 0
    line.data_received(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 5, body[5:]))
    assert told.answered == 1 and played.host.spec is not None and played.host.spec.generation == 5
