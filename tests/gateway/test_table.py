"""What of the database becomes the routing table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import Actor
from controlplane.domain.routing import Most, Ready
from controlplane.fleet.models import Partition
from controlplane.fleet.publish import publish
from controlplane.fleet.services import set_pool
from controlplane.gateway import services, table
from controlplane.gateway.keys import hash_of
from controlplane.gateway.reporting import Reporting
from controlplane.gateway.table import Engine, Over
from controlplane.gateway.watch import Watch
from controlplane.teams import services as teams
from controlplane.teams.models import TeamSpend
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
