"""How the table is kept up to date: looks at the database, glances in between, and when it does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.db import OperationalError, close_old_connections, connection, connections
from django.db.models import Model
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from controlplane.audit.services import Actor
from controlplane.fleet import selectors
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.gateway import services, table
from controlplane.gateway.models import ApiKey
from controlplane.gateway.table import Table
from controlplane.gateway.watch import Watch
from controlplane.lanes import keep_connections
from controlplane.teams import services as teams
from controlplane.teams.models import Team, TeamSpend
from tests.factories import make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


def test_the_first_node_to_report_again_silences_no_other() -> None:
    """The web process was away for a minute; a and b lived on, c had been silent before."""
    now = timezone.now() - timedelta(seconds=30)
    nodes = {name: make_node(name, last_seen=now - timedelta(seconds=60 + extra)) for name, extra in NODES.items()}
    for node in nodes.values():
        make_ready(make_partition(node, role="decode"))
    watch = Watch()
    assert looks(watch) == ["a", "b"]

    hear(nodes["a"], now)
    assert looks(watch) == ["a", "b"], "b has had no time to report"
    hear(nodes["a"], now + timedelta(seconds=9))
    assert looks(watch) == ["a", "b"]
    hear(nodes["b"], now + timedelta(seconds=9))
    hear(nodes["a"], now + timedelta(seconds=11))
    assert looks(watch) == ["a", "b"]


def test_a_node_that_does_not_report_again_is_out_in_the_end() -> None:
    now = timezone.now() - timedelta(seconds=30)
    nodes = {name: make_node(name, last_seen=now - timedelta(seconds=60)) for name in ("a", "b")}
    for node in nodes.values():
        make_ready(make_partition(node, role="decode"))
    watch = Watch()
    looks(watch)
    for later in range(10):
        hear(nodes["a"], now + timedelta(seconds=later))
        assert looks(watch) == ["a", "b"]
    hear(nodes["a"], now + timedelta(seconds=10))
    assert looks(watch) == ["a"]


NODES = {"a": 0, "b": 1, "c": 40}


def hear(node: Node, at: datetime) -> None:
    Node.objects.filter(pk=node.pk).update(last_seen=at)


def looks(watch: Watch) -> list[str]:
    """The nodes whose engines are routable at the next look."""
    watch.look()
    return sorted(engine.name.split("/")[0] for engine in watch.table.engines.values())


def test_the_last_good_table_serves_on_while_the_database_is_away() -> None:
    good, better = Table(read_at=1.0), Table(read_at=2.0)
    answers: list[Table | Exception] = [good, OperationalError("away"), RuntimeError("odd"), better]

    def reader() -> Table:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = Watch(reader=reader)
    seen = []
    for _ in range(4):
        watch.look()
        seen.append((watch.table, watch.failing))
    assert seen == [(good, False), (good, True), (good, True), (better, False)]


def test_a_change_is_seen_before_the_next_look_is_due() -> None:
    marks: list[int] = [0]
    tables: list[Table] = []

    def reader() -> Table:
        tables.append(Table(read_at=float(len(tables) + 1)))
        return tables[-1]

    watch = Watch(60.0, 0.01, reader=reader, glance=lambda: marks[0])
    taken: list[Table] = []
    watch.listener = taken.append
    watch.start()
    try:
        until(lambda: len(tables) == 2)  # at the start nothing is known to be the same
        time.sleep(0.1)
        assert len(tables) == 2
        marks[0] = 1
        until(lambda: len(tables) == 3)
        assert watch.table is tables[-1]
        assert taken == tables
    finally:
        watch.stop()
        watch.join(10)


def test_while_requests_wait_for_an_engine_it_is_glanced_at_sooner() -> None:
    glances: list[float] = []
    waiting = threading.Event()

    def glance() -> object:
        glances.append(time.monotonic())
        return 0

    watch = Watch(60.0, 0.2, 0.01, reader=lambda: Table(read_at=1.0), glance=glance)
    watch.hurried = waiting.is_set
    watch.start()
    try:
        until(lambda: len(glances) == 3)
        waiting.set()
        until(lambda: len(glances) == 15)
        waiting.clear()
        until(lambda: len(glances) >= 20)
    finally:
        watch.stop()
        watch.join(10)
    assert glances[2] - glances[1] >= 0.2
    assert min(after - before for before, after in pairwise(glances[4:14])) < 0.1
    assert glances[-1] - glances[-2] >= 0.2


def test_a_glance_that_fails_leaves_it_to_the_look() -> None:
    def glance() -> object:
        raise OperationalError("away")

    looks: list[float] = []

    def reader() -> Table:
        looks.append(time.monotonic())
        return Table(read_at=1.0)

    watch = Watch(0.2, 0.01, reader=reader, glance=glance)
    watch.start()
    try:
        until(lambda: len(looks) == 3)
    finally:
        watch.stop()
        watch.join(10)
    assert looks[2] - looks[0] > 0.3


def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    limit = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_what_is_glanced_at_differs_after_each_step_of_a_flip() -> None:
    partition = make_ready(make_partition(role="decode", generation=4))
    other = make_ready(make_partition(role="decode", generation=4))
    seen = [selectors.routing_mark()]
    steps: list[dict[str, object]] = [
        {"role": "prefill", "generation": 5},
        {"observed_generation": 5, "observed_role": "prefill"},
        {"phase": "draining", "phase_since": timezone.now()},
        {"phase": "", "phase_since": None},
        {"phase": "starting", "phase_since": timezone.now()},
        {"phase": "ready", "phase_since": timezone.now() + timedelta(seconds=1)},
    ]
    for step in steps:
        Partition.objects.filter(pk=partition.pk).update(**step)
        seen.append(selectors.routing_mark())
        assert seen[-1] != seen[-2], step
    other.delete()
    assert selectors.routing_mark() != seen[-1]


def test_a_glance_costs_one_row(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for _ in range(3):
        make_partition(role="decode")
    with django_assert_num_queries(1):
        assert len(selectors.routing_mark()) == 4


def looked(watch: Watch) -> Table:
    watch.look()
    assert not watch.failing
    return watch.table


def test_a_look_makes_the_table_anew_only_if_something_changed(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    make_ready(make_partition(role="decode"))
    watch = Watch()
    before = looked(watch)
    with django_assert_num_queries(5):
        after = looked(watch)
    assert after.engines is before.engines
    assert after.read_at > before.read_at


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (Partition, {"role": "prefill", "observed_role": "prefill"}),
        (Partition, {"generation": 9}),
        (Partition, {"phase": "draining"}),
        (Partition, {"phase_since": timezone.now() + timedelta(seconds=9)}),
        (Partition, {"endpoint": "http://10.0.0.9:80"}),
        (Partition, {"engine_key": "another"}),
        (Partition, {"name": "another"}),
        (Partition, {"deployment": None, "role": ""}),
        (Node, {"name": "another"}),
        (Node, {"revoked": True}),
        (Deployment, {"name": "another"}),
        (Deployment, {"aliases": ["another"]}),
        (Deployment, {"min_transfer_tokens": 9}),
        (Deployment, {"decode_max_requests": 9}),
        (Deployment, {"prefill_args": ["--max-num-seqs=4"]}),
        (ApiKey, {"revoked_at": timezone.now()}),
        (ApiKey, {"deployments": ["another"]}),
        (ApiKey, {"requests_per_minute": 9}),
        (ApiKey, {"expires_at": timezone.now() + timedelta(days=9)}),
        (ApiKey, {"team": None}),
        (Team, {"budget_hard": 200}),
        (Team, {"name": "another"}),
        (TeamSpend, {"spent": 151}),
        (TeamSpend, {"spent": 99}),
    ],
)
def test_whatever_the_table_is_made_of_is_new_at_the_next_look(
    actor: Actor, model: type[Model], columns: dict[str, object]
) -> None:
    make_ready(make_partition(role="decode"))
    team = teams.create_team(name="search", budget_hard=Decimal(100), actor=actor)
    TeamSpend.objects.create(team=team, month=timezone.now().date().replace(day=1), spent=Decimal(150))
    services.create_key(name="k", team="search", actor=actor)
    watch = Watch()
    before = looked(watch)
    model._default_manager.update(**columns)
    after = looked(watch)
    assert replace(after, read_at=0.0) != replace(before, read_at=0.0)
    assert replace(after, read_at=0.0) == replace(table.read(), read_at=0.0)


def test_what_is_known_of_deployments_is_made_anew_only_when_one_of_them_changes() -> None:
    engine, other = make_ready(make_partition(role="decode")), make_partition(role="decode")
    assert engine.deployment is not None
    assert other.deployment is not None
    watch = Watch()
    before = looked(watch).served
    Partition.objects.filter(pk=engine.pk).update(phase="")
    after = looked(watch).served
    assert before[engine.deployment.name].has_engine
    assert not after[engine.deployment.name].has_engine
    assert after[other.deployment.name] is before[other.deployment.name]
    Deployment.objects.filter(pk=other.deployment.pk).update(aliases=["spare"])
    assert looked(watch).served["spare"].name == other.deployment.name


def test_a_node_that_falls_silent_is_out_at_the_next_look() -> None:
    silent, heard = make_node("n1"), make_node("n2")
    partition = make_ready(make_partition(silent, role="decode"))
    watch = Watch()
    assert list(looked(watch).engines) == [partition.pk]
    Node.objects.filter(pk=heard.pk).update(last_seen=timezone.now())
    Node.objects.filter(pk=silent.pk).update(last_seen=timezone.now() - timedelta(minutes=5))
    assert not looked(watch).engines


def test_a_thread_of_the_gateway_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONN_MAX_AGE", "CONN_HEALTH_CHECKS"):  # put back afterwards
        monkeypatch.setitem(connections.settings["default"], name, connections.settings["default"][name])
    kept: list[bool] = []

    def work() -> None:
        connection.ensure_connection()
        first = connection.connection
        close_old_connections()
        kept.append(connection.connection is first)
        connection.close()

    keep_connections()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert kept == [True]
