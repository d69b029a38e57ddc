"""An engine's door is shut before it goes: whatever gateways know, nobody who was let in is cut off."""

from __future__ import annotations

import time
from dataclasses import replace

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.control import Control, alive, make_spec, until
from workers import probes
from workers.book import Record
from workers.contract import EngineSample, NodeSpec, Phase
from workers.engines import door
from workers.engines.guard.forebay_guard import Rule
from workers.probes import Prober, seen_draining
from workers.processes import Process
from workers.reconcile import QUIET_S, Doze, Drain, Relabel, Replica, Stop, is_shut, reconcile

GONE, WANTED = NodeSpec(node=7, generation=2), NodeSpec(node=7, generation=1, replicas=(make_spec(1),))
OTHER = NodeSpec(node=7, generation=3, replicas=(make_spec(1, deployment="other", model="/models/other"),))
SPECS = {"release": GONE, "want again": WANTED, "want another": OTHER}
EVENTS = ["request", "end", "probe", "tick", "a moment", "half a second", *SPECS]


class World:
    """One engine with a guard, an agent that looks after it, and clients who know nothing of what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.ended, self.refused, self.spec = 100.0, 0, 0, WANTED
        self.replica = Replica(make_spec(1), Phase.READY, 90.0)
        monkeypatch.setattr(probes, "clock", lambda: self.now)
        monkeypatch.setattr("workers.engines.guard.forebay_guard.time.monotonic", lambda: self.now)
        self.rule = Rule("secret")
        self.prober = Prober("host", httpx.Client(transport=httpx.MockTransport(self._door)))
        self.prober._pool.submit = lambda work, *args: work(*args)  # type: ignore[assignment,method-assign]

    def _door(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == door.PATH
        if status := self.rule.refusal(request.url.path, request.headers[door.HEADER].encode()):
            return httpx.Response(status)
        status, body = self.rule.turn_door(request.method)
        return httpx.Response(status, content=body)

    def sample(self, client: httpx.Client, url: str) -> EngineSample:
        inside = float(self.rule.inside)
        return EngineSample(running=inside, waiting=0.0, requests_total=float(self.ended), kv_usage=0.0)

    @property
    def record(self) -> Record:
        return Record(replica=self.replica, boot="", marker="", process=Process(1, 1, ""), port=1, secret="secret")

    def happen(self, what: str) -> None:
        if what == "request" and self.replica.phase in (Phase.READY, Phase.DRAINING):
            if self.rule.refusal("/v1/completions", b""):
                self.refused += 1
            else:
                self.rule.inside += 1
        elif what == "end" and self.rule.inside:
            self.rule.inside -= 1
            self.ended += 1
        elif what == "probe":
            self.prober.ask(self.record, self)  # type: ignore[arg-type]
        elif what in SPECS:
            self.spec = SPECS[what]
        self.now += {"a moment": 0.05, "half a second": 0.5}.get(what, 0.001)
        if what == "tick":
            self.tick()

    def tick(self) -> None:
        if self.replica.phase == Phase.STOPPING:
            return
        probe = self.prober.latest(self.record)
        if probe is not None and probe.begun >= self.replica.since and self.replica.phase == Phase.DRAINING:
            self.replica = seen_draining(self.replica, probe, self.now)
        for action in reconcile(self.spec, {1: self.replica}, self.now):
            if isinstance(action, Drain):
                self.replica = replace(
                    self.replica, phase=Phase.DRAINING, since=self.now, idle_since=None, shut_until=None,
                    hurried=action.hurried,
                )  # fmt: skip
            elif isinstance(action, Relabel):
                self.prober.reopen(self.record)
                self.replica = replace(self.replica, phase=Phase.READY, since=self.now, shut_until=None)
            elif isinstance(action, Stop | Doze):
                if is_shut(self.replica, self.now):
                    assert self.rule.inside == 0 and self.rule.refusal("/v1/completions", b"") == 503
                self.replica = replace(self.replica, phase=Phase.STOPPING, since=self.now)


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
def test_in_any_history_nobody_is_inside_an_engine_that_leaves_by_its_door(history):
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch)
        for what in ["probe", "half a second", *history]:
            world.happen(what)
        if world.replica.phase == Phase.READY:
            assert world.rule.refusal("/v1/completions", b"") == 0, "it serves on"


def test_an_idle_engine_leaves_at_its_first_look_and_one_that_was_just_asked_does_not():
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch)
        for what in ["probe", "half a second", "half a second", "a moment", "release", "tick", "probe", "tick"]:
            world.happen(what)
        assert world.replica.phase == Phase.STOPPING
        world = World(monkeypatch)
        for what in ["probe", "half a second", "release", "tick", "probe", "tick"]:
            world.happen(what)
        assert world.replica.phase == Phase.DRAINING and world.rule.refusal("/v1/completions", b"") == 0
        world = World(monkeypatch)
        for what in ["probe", "half a second", "want another", "tick", "probe", "tick"]:
            world.happen(what)
        assert world.replica.phase == Phase.STOPPING, "somebody waits for its devices"


def test_a_busy_engine_stays_for_its_request_though_another_is_wanted():
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch)
        for what in [
            "probe",
            "half a second",
            "request",
            "want another",
            "tick",
            *["probe", "half a second", "tick"] * 9,
        ]:
            world.happen(what)
        assert (world.replica.phase, world.rule.inside) == (Phase.DRAINING, 1)
        for what in ["end", "probe", "half a second", "tick", "probe", "tick"]:
            world.happen(what)
        assert world.replica.phase == Phase.STOPPING


def test_a_drain_that_is_taken_back_opens_the_door():
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch)
        for what in ["probe", "half a second", "half a second", "a moment", "release", "tick", "probe"]:
            world.happen(what)
        probe = world.prober.latest(world.record)
        assert probe is not None and world.rule.refusal("/v1/completions", b"") == 503
        world.replica = seen_draining(world.replica, probe, world.now)
        world.happen("want again")
        world.tick()
        assert world.replica.phase == Phase.READY and world.rule.refusal("/v1/completions", b"") == 0


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401), httpx.Response(404), httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=b"{}"), httpx.ConnectError("refused"), httpx.ReadTimeout("no answer"),
    ],
)  # fmt: skip
def test_an_engine_without_a_door_is_waited_for_as_before(answer):
    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with httpx.Client(transport=httpx.MockTransport(handle)) as client:
        assert door.shut(client, "http://e", "secret") is None


def test_an_agent_has_a_quiet_engine_leave_at_once(agent, control: Control):
    """Without its door it would stay for 0.3 s, which gateways need to hear of it."""
    control.period_s = 0.05
    control.want(make_spec(1))
    agent.start()
    until(lambda: control.reports and control.is_ready(1))
    pid = control.replica(1).pid  # type: ignore[union-attr]
    until(lambda: (s := control.replica(1).sample) is not None and s.requests_total, what="it is counted")  # type: ignore[union-attr]
    time.sleep(QUIET_S + 1.5)
    before = len(control.reports)
    control.want()
    until(lambda: not alive(pid))
    ages = [r.phase_age_s for report in control.reports[before:] for r in report.replicas if r.phase == Phase.DRAINING]
    assert max(ages, default=0.0) < 0.25, ages


def test_a_spec_of_before_is_read_and_keeps_no_door():
    old = msgspec.json.decode(
        msgspec.json.encode(Replica(make_spec(1), Phase.DRAINING, 1.0, idle_since=0.5)), type=Replica
    )
    assert old.shut_until is None


@pytest.mark.parametrize("stage", ["before it is sent", "after it has arrived"])
def test_a_drain_that_is_taken_back_while_a_probe_is_on_its_way_leaves_no_door_shut(stage):
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch)
        for what in ["probe", "half a second", "half a second", "a moment", "release", "tick"]:
            world.happen(what)
        assert world.replica.phase == Phase.DRAINING
        real, shuts = door.shut, []

        def slow(*args):
            if stage == "before it is sent":
                world.happen("want again")
                world.tick()
            shuts.append(found := real(*args))
            if stage == "after it has arrived":
                world.happen("want again")
                world.tick()
            return found

        monkeypatch.setattr(door, "shut", slow)
        world.happen("probe")
        assert shuts and world.replica.phase == Phase.READY
        probe = world.prober.latest(world.record)
        assert probe is not None and probe.shut_until is None
        assert world.rule.refusal("/v1/completions", b"") == 0


def test_a_door_that_is_yet_to_be_opened_is_not_counted_on():
    """The opening may come after the next shutting."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world, late = World(monkeypatch), []
        world.prober._pool.submit = lambda work, *args: late.append((work, args))  # type: ignore[assignment,method-assign]

        def go():
            while late:
                work, args = late.pop(0)
                work(*args)

        for what in ["probe", "half a second", "half a second", "a moment", "release", "tick", "want again"]:
            world.happen(what)
            go()
        world.tick()
        opening = late.pop()
        for what in ["half a second", "half a second", "a moment", "release", "tick", "probe"]:
            world.happen(what)
        go()
        probe = world.prober.latest(world.record)
        assert world.replica.phase == Phase.DRAINING and probe is not None and probe.shut_until is None
        late.append(opening)
        go()
        world.happen("half a second")
        world.happen("probe")
        go()
        probe = world.prober.latest(world.record)
        assert probe is not None and probe.shut_until is not None


def test_what_an_opening_says_of_a_door_is_forgotten_with_its_process():
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch)
        monkeypatch.setattr(door, "open_again", lambda *_: False)
        world.prober.reopen(world.record)
        assert world.prober._opening and world.prober._reopened
        world.prober.keep_only([world.record])
        assert world.prober._opening and world.prober._reopened
        world.prober.keep_only([])
        assert not world.prober._opening and not world.prober._reopened


def test_an_opening_that_was_not_answered_is_asked_for_again_while_the_engine_stays():
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch)
        opened = door.open_again
        monkeypatch.setattr(door, "open_again", lambda *_: False)
        world.prober.reopen(world.record)
        world.happen("probe")
        assert world.prober._opening
        monkeypatch.setattr(door, "open_again", opened)
        for what in ["half a second", "half a second", "probe"]:
            world.happen(what)
        assert not world.prober._opening
        for what in ["half a second", "half a second", "a moment", "release", "tick", "probe", "tick"]:
            world.happen(what)
        assert world.replica.phase == Phase.STOPPING, "by its door"
