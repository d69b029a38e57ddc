"""The real agent as a process, with real engine processes (simulated engines) and a small control plane."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
import time

import httpx
import msgspec
import psutil
import pytest

from tests.workers.control import NODE, AgentProcess, Control, alive, make_spec, until
from workers.contract import LogWanted, NodeSpec, Phase, Role
from workers.processes import GPUS, MARKER, marked

KEY = {"Authorization": "Bearer engine-key-of-the-test"}


def run_ready(agent: AgentProcess, control: Control, *partitions: int) -> list[int]:
    """Start the agent with these partitions wanted; the pids of their engines."""
    control.want(*(make_spec(p) for p in partitions))
    agent.start()
    until(lambda: control.reports and all(control.is_ready(p) for p in partitions), what="engines ready")
    return [control.replica(p).pid for p in partitions]


def test_an_assignment_converges_through_the_replies_alone(agent, control):
    pids = run_ready(agent, control, 1, 2)
    assert len(set(pids)) == 2
    assert control.last.generation == control.spec.generation
    assert {r.endpoint for r in control.last.replicas} == {control.replica(1).endpoint, control.replica(2).endpoint}
    assert control.replica(1).ready_after_s > 0
    assert httpx.get(control.replica(1).endpoint + "/v1/models", headers=KEY).status_code == 200
    assert httpx.get(control.replica(1).endpoint + "/v1/models").status_code == 401


def test_an_agent_killed_outright_leaves_its_engines_serving_and_the_next_one_adopts_them(agent, control):
    pids = run_ready(agent, control, 1, 2)
    endpoint = control.replica(1).endpoint
    agent.kill(signal.SIGKILL)
    body = {"model": "demo", "prompt": "a", "max_tokens": 1}
    assert httpx.post(endpoint + "/v1/completions", json=body, headers=KEY).status_code == 200
    control.reports.clear()
    agent.start()
    until(lambda: control.reports and control.is_ready(1) and control.is_ready(2))
    time.sleep(1.5)  # long enough for it to change its mind
    assert [control.replica(p).pid for p in (1, 2)] == pids
    assert all(control.is_ready(p) for p in (1, 2)) and "adopted p1" in agent.log()


def test_sigterm_ends_the_agent_and_not_its_engines(agent, control):
    [pid] = run_ready(agent, control, 1)
    assert agent.kill(signal.SIGTERM) == 0
    assert alive(pid)


def test_an_adopted_engine_is_still_stopped_when_it_is_no_longer_wanted(agent, control):
    [pid] = run_ready(agent, control, 1)
    agent.kill(signal.SIGKILL)
    control.want()
    agent.start()
    until(lambda: not alive(pid))
    until(lambda: control.last.replicas == ())


def test_an_engine_killed_outright_is_restarted_and_its_last_lines_are_carried_up(agent, control):
    [pid] = run_ready(agent, control, 1)
    os.kill(pid, signal.SIGKILL)
    gone = until(lambda: (r := control.replica(1)) and r.phase == Phase.EXITED and r)
    assert gone.last_exit.code == -signal.SIGKILL and "killed by SIGKILL" in gone.message
    assert "simulated engine on" in gone.last_exit.log_tail
    until(lambda: control.is_ready(1) and control.replica(1).pid not in {0, pid})
    assert control.replica(1).restarts == 1 and control.replica(1).last_exit.code == -signal.SIGKILL
    shown = piece(control, LogWanted(partition=1, id="a", limit=9000, previous=True))
    assert [line.split()[0] for line in shown.splitlines()] == ["[forebay]", "simulated"]
    both = piece(control, LogWanted(partition=1, id="b", limit=9000))
    assert both.startswith(shown) and both.count("simulated engine on") == 2
    own = piece(control, LogWanted(partition=0, id="c", limit=9000))
    assert own.count("p1 started") == 2 and "WARNING workers.agent: p1 ended: killed by SIGKILL" in own


def piece(control, wanted):
    """The text that one asks for by an id, as the agent sends it."""
    control.logs = (wanted,)
    chunks = until(lambda: [c for c in control.last.logs if c.id == wanted.id])
    control.logs = ()
    assert all(c.partition == wanted.partition for c in chunks)
    return "".join(c.text for c in chunks)


def test_an_engine_that_keeps_failing_is_started_ever_more_seldom(agent, control):
    control.want(make_spec(1, args=("--exit-after-s", "0.1", "--start-s", "60")))
    started = agent.start() and time.monotonic()
    until(lambda: control.reports and (r := control.replica(1)) and r.restarts >= 3)
    assert time.monotonic() - started > 1 + 2 + 4
    failed = until(lambda: (r := control.replica(1)) and r.phase == Phase.EXITED and r)
    assert failed.last_exit.code == 3 and "simulated fault" in failed.last_exit.log_tail
    assert "exited with code 3; next start in" in failed.message


def test_a_flip_between_prefill_and_decode_leaves_the_process_alone(agent, control):
    [pid] = run_ready(agent, control, 1)
    phases = []
    control.want(make_spec(1, role=Role.PREFILL))
    until(lambda: phases.append(control.replica(1).phase) or control.replica(1).role == Role.PREFILL)
    assert control.is_ready(1) and control.replica(1).pid == pid and set(phases) == {Phase.READY}


def test_new_content_drains_the_old_engine_and_never_runs_two_on_one_device(agent, control):
    [pid] = run_ready(agent, control, 1)
    before = len(control.reports)
    control.want(make_spec(1, args=("--token-s", "0.01")))
    until(lambda: control.is_ready(1) and control.replica(1).pid != pid)
    seen = [r.replicas[0].phase for r in control.reports[before:] if r.replicas]
    assert Phase.DRAINING in seen and not alive(pid)


def test_a_request_in_flight_survives_the_drain(agent, control):
    control.want(make_spec(1, args=("--token-s", "3"), drain_s=20.0))
    agent.start()
    until(lambda: control.reports and control.is_ready(1))
    with httpx.Client(timeout=30) as client:
        request = client.build_request(
            "POST", control.replica(1).endpoint + "/v1/completions",
            json={"model": "demo", "prompt": "a", "max_tokens": 2}, headers=KEY,
        )  # fmt: skip
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(client.send(request)))
        thread.start()
        until(lambda: (s := control.replica(1).sample) and s.running == 1)
        control.want()
        thread.join()
    assert answers[0].status_code == 200


def test_a_stale_spec_is_dropped_even_after_a_restart(agent, control):
    [pid] = run_ready(agent, control, 1)
    agent.kill(signal.SIGKILL)
    newest = control.spec
    held = msgspec.json.decode((agent.home / "spec.json").read_bytes(), type=NodeSpec)
    assert held == newest
    control.spec = NodeSpec(node=NODE, generation=newest.generation)  # an older truth, with nothing in it
    control.reports.clear()
    real = control.handle

    def stale(path: str, token: str, body: bytes) -> tuple[int, bytes]:
        status, _ = real(path, token, body)
        return status, json.dumps({"at": 0, "spec": json.loads(msgspec.json.encode(control.spec))}).encode()

    control.handle = stale
    agent.start()
    until(lambda: len(control.reports) > 5)
    assert control.replica(1).pid == pid and control.replica(1).phase == Phase.READY


def test_a_spec_for_another_node_is_dropped(agent, control):
    [pid] = run_ready(agent, control, 1)
    control.spec = NodeSpec(node=NODE + 1, generation=control.spec.generation + 5)
    seen = len(control.reports)
    until(lambda: len(control.reports) > seen + 5)
    assert control.replica(1).pid == pid and control.last.generation == 1


def test_without_any_spec_adopted_engines_are_left_alone(agent, control):
    [pid] = run_ready(agent, control, 1)
    agent.kill(signal.SIGKILL)
    (agent.home / "spec.json").unlink()
    control.answer_specs = False
    control.reports.clear()
    agent.start()
    until(lambda: len(control.reports) > 6)
    assert alive(pid) and control.replica(1).pid == pid and control.last.generation == 0


def test_an_engine_whose_record_was_lost_is_found_by_its_marker_and_replaced(agent, control):
    [pid] = run_ready(agent, control, 1)
    agent.kill(signal.SIGKILL)
    for record in (agent.home / "replicas").glob("*.json"):
        record.unlink()
    agent.start()
    until(lambda: not alive(pid))
    until(lambda: control.is_ready(1) and control.replica(1).pid != pid)
    instance = json.loads((agent.home / "agent.json").read_text())["instance"]
    assert len({stray.pid for stray in marked(instance)}) == 1


def test_an_engine_whose_pid_was_never_written_down_is_adopted_by_its_marker(agent, control):
    [pid] = run_ready(agent, control, 1)
    agent.kill(signal.SIGKILL)
    path = agent.home / "replicas" / "1.json"
    record = json.loads(path.read_text()) | {"process": None}
    path.write_text(json.dumps(record))
    control.reports.clear()
    agent.start()
    until(lambda: control.reports and control.is_ready(1))
    assert control.replica(1).pid == pid


def test_an_unreadable_record_is_set_aside_and_its_engine_replaced(agent, control):
    [pid] = run_ready(agent, control, 1)
    agent.kill(signal.SIGKILL)
    (agent.home / "replicas" / "1.json").write_text("{")
    agent.start()
    until(lambda: not alive(pid))
    until(lambda: control.is_ready(1) and control.replica(1).pid != pid)


def test_a_pid_given_to_another_process_is_not_taken_for_the_engine(agent, control):
    [pid] = run_ready(agent, control, 1)
    agent.kill(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    path = agent.home / "replicas" / "1.json"
    record = json.loads(path.read_text())
    record["process"] |= {"pid": os.getpid()}  # this test's own process, which must survive
    path.write_text(json.dumps(record))
    agent.start()
    until(lambda: control.is_ready(1) and control.replica(1).pid not in {0, pid, os.getpid()})


def test_the_marker_names_home_partition_and_generation(agent, control):
    [pid] = run_ready(agent, control, 2)
    environ = psutil.Process(pid).environ()
    instance = json.loads((agent.home / "agent.json").read_text())["instance"]
    assert environ[MARKER] == f"{instance}/2/1" and environ[GPUS] == "SIM-n1-1"
    assert os.getsid(pid) == pid


def test_stop_ends_every_engine_and_refuses_while_an_agent_runs(agent, control):
    pids = run_ready(agent, control, 1, 2)
    refused = agent.command("stop")
    assert refused.returncode == 75 and "holds" in refused.stderr and all(map(alive, pids))
    agent.kill(signal.SIGTERM)
    done = agent.command("stop")
    assert done.returncode == 0 and "2 engines stopped" in done.stdout and not any(map(alive, pids))
    control.reports.clear()
    agent.start()
    until(lambda: control.reports and control.is_ready(1) and control.is_ready(2))
    assert control.replica(1).restarts == 0


def test_a_second_agent_on_the_same_home_refuses(agent, control):
    run_ready(agent, control, 1)
    second = agent.command("run")
    assert second.returncode == 75 and "another agent (pid" in second.stderr


def test_a_copied_home_refuses_to_run(agent, control, tmp_path):
    shutil.copytree(agent.home, tmp_path / "copy")
    copy = AgentProcess(tmp_path / "copy", control)
    done = copy.command("run")
    assert done.returncode == 78 and "join again" in done.stderr


def test_a_revoked_node_drains_its_engines_and_leaves(agent, control):
    pids = run_ready(agent, control, 1, 2)
    control.status, control.problem = 410, "https://forebay/problems/node-revoked"
    assert agent.wait(30) == 78
    assert not any(map(alive, pids))


def test_a_410_that_is_not_from_the_control_plane_stops_nothing(agent, control):
    [pid] = run_ready(agent, control, 1)
    control.status, control.problem = 410, "about:blank"
    seen = len(control.reports)
    time.sleep(3)
    assert alive(pid) and len(control.reports) <= seen + 2  # and it does not hammer


def test_when_another_agent_has_this_identity_engines_are_left_alone_and_the_agent_leaves(agent, control):
    [pid] = run_ready(agent, control, 1)
    control.want()
    control.status, control.problem = 409, "identity-conflict"
    assert agent.wait(40) == 75
    assert alive(pid)


def test_a_conflict_that_passes_is_got_over(agent, control):
    run_ready(agent, control, 1)
    control.status, control.problem = 409, "identity-conflict"
    seen = len(control.reports)
    until(lambda: len(control.reports) > seen + 3)
    control.status = 200
    control.want(make_spec(1), make_spec(2))
    until(lambda: control.is_ready(2))


def test_an_unknown_token_keeps_the_engines_and_tries_slowly(agent, control):
    [pid] = run_ready(agent, control, 1)
    control.status = 401
    seen = len(control.reports)
    time.sleep(3)
    assert alive(pid) and len(control.reports) <= seen + 2
    os.kill(pid, signal.SIGKILL)
    until(lambda: agent.log().count("p1 started") == 2, what="restarted though nobody listens")


def test_told_to_slow_down_it_does(agent, control):
    run_ready(agent, control, 1)
    control.status, control.headers = 503, {"Retry-After": "4"}
    seen = len(control.reports)
    time.sleep(3)
    assert len(control.reports) <= seen + 2


def test_the_log_is_sent_when_somebody_looks_with_secrets_starred_out(agent, control):
    control.want(make_spec(1, served_names=("demo", "engine-key-of-the-test")))
    agent.start()
    until(lambda: control.reports and control.is_ready(1))
    assert not any(r.logs for r in control.reports)
    control.logs = (LogWanted(partition=1),)
    chunk = until(lambda: control.last.logs and control.last.logs[0])
    assert chunk.partition == 1 and "simulated engine on" in chunk.text
    control.logs = (LogWanted(partition=1, offset=chunk.offset + len(chunk.text.encode())),)
    until(lambda: control.last.logs and control.last.logs[0].text == "")


def test_a_lost_device_is_reported_and_nothing_starts_on_it(agent, control):
    (agent.home / "faults").write_text("0 lost fallen off the bus\n")
    control.want(make_spec(1), make_spec(2))
    agent.start()
    until(lambda: control.reports and control.is_ready(2))
    waiting = control.replica(1)
    assert waiting.phase == Phase.EXITED and waiting.pid == 0 and "lost or not on this node" in waiting.message
    assert control.last.samples[0].health == "lost" and control.last.samples[0].utilization is None
    (agent.home / "faults").unlink()
    until(lambda: control.is_ready(1))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"engine": "vllm"}, "set FOREBAY_VLLM"),
        ({"engine": "warp"}, "knows no engine 'warp'"),
    ],
)
def test_what_cannot_be_started_says_why_and_rests(new_agent, control, changes, why):
    agent = new_agent(FOREBAY_VLLM="/nowhere/vllm")
    agent.join()
    control.want(make_spec(1, **changes))
    agent.start()
    failed = until(lambda: control.reports and (r := control.replica(1)) and why in r.message and r)
    assert failed.phase == Phase.EXITED and failed.pid == 0


def test_the_home_is_readable_by_its_owner_only(agent, control):
    run_ready(agent, control, 1)
    for path in [agent.home, *agent.home.rglob("*")]:
        if path.name != "agent.lock":
            assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    assert "engine-key-of-the-test" not in " ".join(psutil.Process(control.replica(1).pid).cmdline())


def test_a_refused_join_says_why(new_agent, control):
    agent = new_agent()
    done = agent.command("join", control.url, "--token", "stale", "--no-run")
    assert done.returncode == 69 and "no such join token" in done.stderr
    assert agent.command("run").returncode == 78


def test_joining_again_keeps_the_identity(agent, control):
    agent.join()
    assert control.joins[0].instance == control.joins[1].instance


def test_reports_are_numbered_on_across_restarts(agent, control):
    run_ready(agent, control, 1)
    first = control.last
    agent.kill(signal.SIGKILL)
    agent.start()
    until(lambda: control.last.boot != first.boot)
    assert control.last.seq > first.seq and control.last.instance == first.instance
