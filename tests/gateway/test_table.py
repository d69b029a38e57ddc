"""What of the database becomes the routing table, and what happens when the database does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.db import OperationalError, close_old_connections, connection, connections, transaction
from django.db.models import Model
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from controlplane.audit.services import Actor
from controlplane.domain.routing import Most, Ready
from controlplane.fleet import selectors
from controlplane.fleet.models import Deployment, Node, Partition
from controlplane.fleet.publish import publish
from controlplane.fleet.services import set_pool
from controlplane.gateway import services, table
from controlplane.gateway.keys import hash_of
from controlplane.gateway.models import ApiKey
from controlplane.gateway.reporting import Reporting
from controlplane.gateway.table import Engine, Over, Table
from controlplane.gateway.watch import Watch
from controlplane.lanes import keep_connections
from controlplane.teams import services as teams
from controlplane.teams.models import Team, TeamSpend
from tests.factories import make_deployment, make_node, make_partition, make_ready

pytestmark = pytest.mark.django_db


def test_confirmed_ready_partitions_are_in_the_table_by_role() -> None:
    deployment = make_deployment("tiny", aliases=["small"], min_transfer_tokens=64)
    node = make_node("n1")
    by_role = {
        role: make_ready(make_partition(node, name=role, deployment=deployment, role=role))
        for role in ("prefill", "decode", "aggregated")
    }

    read = table.read()

    served = read.served["tiny"]
    assert read.served["small"] is served
    assert served.min_transfer_tokens == 64
    assert served.ready == Ready(*((by_role[role].pk,) for role in ("prefill", "decode", "aggregated")), alike=True)
    engine = read.engines[by_role["decode"].pk]
    assert engine.name == "n1/decode"
    assert f"Bearer {by_role['decode'].engine_key}".encode() in engine.head


def test_the_most_requests_at_an_engine_are_known() -> None:
    make_deployment("one", prefill_max_requests=2)
    make_deployment("two")
    served = table.read().served
    assert served["one"].most == Most(prefill=2)
    assert served["two"].most is None


def test_an_engine_in_a_lent_slot_is_overflow_and_no_engine_of_its_role() -> None:
    row = make_deployment("tiny", overflow=True, aggregated_max_requests=3)
    own = make_ready(make_partition(deployment=row, role="aggregated"))
    lent = make_ready(make_partition(deployment=row, role="aggregated", pool=True, overflow=True))
    served = table.read().served["tiny"]
    assert served.ready == Ready(aggregated=(own.pk,), overflow=(lent.pk,), alike=True)
    assert (served.overflow, served.most) == (True, Most(aggregated=3))


def test_a_slot_that_is_no_longer_lent_is_known_at_the_next_look() -> None:
    row = make_deployment("tiny", overflow=True)
    slot = make_partition(deployment=row, role="aggregated", pool=True, overflow=True)
    with transaction.atomic():
        publish(slot.node)  # taking it back changes nothing that its agent has to confirm
    slot.refresh_from_db()
    lent = make_ready(slot)
    watch = Watch()
    watch.look()
    set_pool(lent.pk, pool=False, actor=Actor.system("tester"))
    watch.look()
    assert watch.table.served["tiny"].ready == Ready(aggregated=(lent.pk,), alike=True)


def test_only_a_dedicated_deployment_overflows() -> None:
    make_deployment("tiny", overflow=True, mode="pooled")
    assert not table.read().served["tiny"].overflow


def test_roles_with_arguments_of_their_own_are_not_alike() -> None:
    make_deployment("tiny", prefill_args=["--max-num-seqs=4"])
    assert not table.read().served["tiny"].ready.alike


@pytest.mark.parametrize(
    "columns",
    [
        {"phase": "starting"},
        {"phase": "draining"},
        {"phase": "asleep"},
        {"phase": ""},
        {"generation": 7, "observed_generation": 6},
        {"observed_role": "prefill"},
        {"endpoint": ""},
        {"endpoint": "https://10.0.0.1:80"},
        {"endpoint": "http://10.0.0.1"},
        {"endpoint": "http://10.0.0.1:99999"},
        {"endpoint": "nonsense"},
        {"engine_key": "a\r\nx-evil: 1"},
    ],
)
def test_what_is_not_ready_confirmed_and_reachable_is_not_in_it(columns: dict[str, object]) -> None:
    make_ready(make_partition(role="decode"), **columns)
    read = table.read()
    assert not read.engines
    assert len(read.served) == 1, "the deployment is known all the same: 503, not 404"


def test_a_silent_node_is_out_while_others_report() -> None:
    make_ready(make_partition(make_node("gone", last_seen=timezone.now() - timedelta(seconds=30)), role="decode"))
    make_ready(make_partition(make_node("there"), role="decode"))
    assert [engine.name.split("/")[0] for engine in table.read().engines.values()] == ["there"]


def test_when_no_node_reports_it_is_the_reporting_that_is_down() -> None:
    """The web process restarts, say: the engines serve on."""
    long_ago = timezone.now() - timedelta(minutes=10)
    make_ready(make_partition(make_node("a", last_seen=long_ago), role="decode"))
    make_ready(make_partition(make_node("b", last_seen=long_ago - timedelta(seconds=30)), role="decode"))
    assert [engine.name.split("/")[0] for engine in table.read().engines.values()] == ["a"]


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


def test_a_revoked_node_is_out() -> None:
    make_ready(make_partition(make_node(revoked=True), role="decode"))
    assert not table.read().engines


def test_the_keys_that_open_are_the_lawful_ones_and_our_own(actor: Actor) -> None:
    make_deployment("tiny")
    _, plain = services.create_key(name="one", deployments=["tiny"], requests_per_minute=5, actor=actor)
    revoked, gone = services.create_key(name="two", actor=actor)
    services.revoke_key(revoked.pk, actor=actor)
    soon = timezone.now() + timedelta(seconds=5)
    _, expiring = services.create_key(name="three", expires_at=soon, actor=actor)

    keys = table.read().keys

    assert keys[hash_of(plain)].requests_per_minute == 5
    assert keys[hash_of(plain)].opens("tiny") and not keys[hash_of(plain)].opens("other")
    assert hash_of(gone) not in keys
    assert keys[hash_of(expiring)].expires_at == pytest.approx(soon.timestamp())
    assert hash_of(expiring) not in table.read(soon + timedelta(seconds=1)).keys
    own = keys[hash_of(services.internal_key())]
    assert own.id is None and own.opens("anything")


def test_a_key_whose_team_is_past_its_hard_limit_is_refused_until_the_month_is_over(actor: Actor) -> None:
    now = datetime(2026, 11, 15, tzinfo=UTC)
    team = teams.create_team(name="search", budget_hard=Decimal(100), actor=actor)
    mine, _ = services.create_key(name="mine", team="search", actor=actor)
    services.create_key(name="other", actor=actor)
    other = teams.create_team(name="rich", budget_soft=Decimal(1), actor=actor)
    services.create_key(name="rich", team="rich", actor=actor)
    for one in (team, other):
        TeamSpend.objects.create(team=one, month=now.date().replace(day=1), spent=Decimal("100.5"))

    def refused(at: datetime) -> dict[int, Over]:
        return {key.id: key.over for key in table.read(at).keys.values() if key.over is not None}

    [over] = refused(now).items()
    assert over[0] == mine.pk
    assert over[1].until == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert "search has used 100.50 of its budget of 100.00 USD" in over[1].message
    assert refused(now + timedelta(days=30)) == {}, "what was used last month is not this month's"
    teams.change_team(team.pk, budget_hard=Decimal(101), actor=actor)
    assert refused(now) == {}


def test_a_look_sees_what_is_spent_of_a_hard_limit_the_limit_its_name_and_the_month(actor: Actor) -> None:
    now = datetime(2026, 11, 15, tzinfo=UTC)
    team = teams.create_team(name="search", budget_hard=Decimal(100), actor=actor)
    look = lambda at=now: table.state(at, Reporting())  # noqa: E731
    seen = [look()]
    assert look() == seen[0]
    spend = TeamSpend.objects.create(team=team, month=now.date().replace(day=1), spent=Decimal("99"))
    seen.append(look())
    TeamSpend.objects.filter(pk=spend.pk).update(spent=Decimal("100.5"))
    seen.append(look())
    teams.change_team(team.pk, budget_hard=Decimal(101), actor=actor)
    seen.append(look())
    seen.append(look(now + timedelta(days=30)))
    assert all(before != after for before, after in pairwise(seen))


def test_an_ipv6_endpoint_is_an_endpoint() -> None:
    engine = Engine.at(1, "n/p", "http://[::1]:8000", "k")
    assert engine is not None
    assert (engine.host, engine.port) == ("::1", 8000)
    assert engine.head.startswith(b"host: [::1]:8000\r\n")


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


def test_the_size_of_a_block_is_of_the_arguments_or_what_the_agent_and_gpus_do_not_exceed() -> None:
    make_deployment("a", engine_args=["--block-size", "64"])
    make_deployment("b", engine_args=["--block-size", "nonsense"])
    make_deployment("c")
    served = table.read().served
    assert [served[name].block_tokens for name in "abc"] == [64, 32, 32]


def test_an_engine_is_told_from_the_one_before_by_when_it_became_ready() -> None:
    partition = make_ready(make_partition(role="decode", generation=3))
    before = table.read().engines[partition.pk]
    assert before.generation == 3
    Partition.objects.update(generation=4, observed_generation=4)
    relabelled = table.read().engines[partition.pk]
    assert (relabelled.generation, relabelled.process) == (4, before.process)
    Partition.objects.update(phase_since=timezone.now() + timedelta(seconds=5))
    assert table.read().engines[partition.pk].process != before.process


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
