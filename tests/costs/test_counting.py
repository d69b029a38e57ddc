"""Whose the GPUs' time was, hour by hour, from what the gateway and the samples tell."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db.models import Sum

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.costs import counting, services
from controlplane.costs.models import Counted, NodePrice, UsageHour
from controlplane.fleet.errors import Invalid, Refused
from controlplane.fleet.models import Node
from controlplane.gateway import services as gateway
from controlplane.teams import services as teams
from controlplane.teams.models import TeamSpend
from controlplane.telemetry import rollup
from controlplane.telemetry.models import EngineSample, GpuSample, Rollup
from tests.costs.conftest import HOUR, LATER, Past
from tests.factories import make_partition

pytestmark = pytest.mark.django_db


def of_hour() -> dict[tuple[str, str | None, str | None], UsageHour]:
    """By share, team and key."""
    rows = UsageHour.objects.filter(hour=HOUR).select_related("team", "key")
    return {(row.share, row.team and row.team.name, row.key and row.key.name): row for row in rows}


def figures() -> list[tuple]:
    names = [field.attname for field in UsageHour._meta.fields if field.name != "id"]
    return sorted(map(str, UsageHour.objects.values_list(*names)))


def test_an_hours_time_is_its_users_its_owners_and_nobodys(past: Past) -> None:
    past.gpus_up()
    past.up(past.prefill)
    past.up(past.decode)
    past.asked(0, 40)  # 10 s of prefill, 30 s of decode, on two GPUs each
    past.asked(600, 40, api_key=None)  # without a key: the playground
    counting.count(LATER)
    rows = of_hour()
    assert set(rows) == {
        ("active", "users", "bot"), ("active", None, None), ("reserved", "owners", None), ("idle", None, None),
    }  # fmt: skip
    mine = rows["active", "users", "bot"]
    assert (mine.gpu_s, mine.in_gpu_s, mine.out_gpu_s) == pytest.approx((80, 20, 60))
    assert (mine.requests, mine.prompt_tokens, mine.completion_tokens) == (1, 1000, 100)
    assert (mine.in_tokens, mine.out_tokens, mine.deployment, mine.node) == (1000, 100, "chat", "alpha")
    assert rows["reserved", "owners", None].gpu_s == pytest.approx(4 * 3600 - 160)
    assert rows["idle", None, None].gpu_s == pytest.approx(3600)
    assert sum(row.gpu_s for row in rows.values()) == pytest.approx(5 * 3600), "an hour of each of its five GPUs"
    assert {row.cost for row in rows.values()} == {None}, "without a price its cost is not known"


def test_counting_again_comes_to_the_same_and_an_hour_that_is_final_stays(past: Past, actor: Actor) -> None:
    past.up(past.decode)
    past.asked(0, 40)
    counting.count(HOUR + timedelta(minutes=65))
    first = figures()
    past.asked(3500, 200, prefill_ms=None, path="direct", ttft_ms=100e3)  # reaches into the next hour
    counting.count(HOUR + timedelta(minutes=66))
    both = figures()
    assert both != first, "10 minutes after its end an hour is not final"
    counting.count(HOUR + timedelta(minutes=66))
    assert figures() == both
    counting.count(LATER)
    assert figures() == both
    assert Counted.objects.get().upto == HOUR + timedelta(hours=1)
    past.asked(100, 40)
    counting.count(LATER + timedelta(minutes=1))
    assert figures() == both, "what is told after that is not counted"


def test_a_request_across_the_hours_end_has_its_time_in_both_and_its_tokens_where_it_ended(past: Past) -> None:
    past.up(past.decode)
    past.asked(-100, 160, path="direct", prefill="", prefill_ms=None, ttft_ms=40e3, cached_tokens=900)
    counting.count(LATER)
    mine = of_hour()["active", "users", "bot"]
    assert mine.gpu_s == pytest.approx(2 * 60)
    assert (mine.in_gpu_s, mine.out_gpu_s) == pytest.approx((30, 90))
    assert mine.requests == 1
    before = UsageHour.objects.get(hour=HOUR - timedelta(hours=1), share="active")
    assert (before.gpu_s, before.requests) == (0.0, 0), "nothing is known of the engine then"


def test_a_slot_that_the_pool_lends_is_paid_like_the_deployments_other_engines(past: Past) -> None:
    slot = make_partition(past.node, name="s", deployment=past.deployment, role="aggregated", pool=True, overflow=True)
    past.up(slot, range(10))
    past.asked(60, 40, path="overflow", prefill="", decode="alpha/s", prefill_ms=None, ttft_ms=10e3)
    counting.count(LATER)
    rows = of_hour()
    mine = rows["active", "users", "bot"]
    assert mine.gpu_s == pytest.approx(40), "its own second of the slot's one GPU"
    assert (mine.in_gpu_s, mine.out_gpu_s) == pytest.approx((10, 30))
    assert (mine.requests, mine.prompt_tokens, mine.completion_tokens, mine.deployment) == (1, 1000, 100, "chat")
    assert rows["reserved", "owners", None].gpu_s == pytest.approx(600 - 40), "while it is lent, and no longer"


def test_after_an_outage_all_hours_are_counted_in_bounded_runs(past: Past) -> None:
    past.up(past.decode)
    past.asked(0, 40)
    runs = 0
    while not Counted.objects.filter(upto__gte=HOUR + timedelta(hours=1)).exists():
        counting.count(LATER, work_s=0.0)
        runs += 1
    assert runs == 2, "an hour a run, when there is no time for more"
    assert of_hour()["active", "users", "bot"].requests == 1


def test_an_hour_whose_samples_are_not_added_up_yet_is_not_final(past: Past) -> None:
    Rollup.objects.update(upto=HOUR + timedelta(minutes=30))
    past.up(past.decode, range(30))
    counting.count(LATER)
    assert Counted.objects.get().upto == HOUR
    past.up(past.decode, range(30, 60))
    Rollup.objects.update(upto=LATER)
    counting.count(LATER)
    assert Counted.objects.get().upto == HOUR + timedelta(hours=1)
    assert of_hour()["reserved", "owners", None].gpu_s == pytest.approx(7200)


def test_an_engine_that_is_gone_by_then_has_its_time_all_the_same(past: Past) -> None:
    counting.count(HOUR)
    past.up(past.decode, range(10))
    past.asked(0, 40)
    past.decode.delete()
    counting.count(LATER)
    assert of_hour()["active", "users", "bot"].gpu_s == pytest.approx(60)
    assert of_hour()["reserved", "owners", None].gpu_s == pytest.approx(2 * 600 - 60)


def test_from_samples_to_usage_by_the_roads_of_a_running_system(past: Past) -> None:
    Rollup.objects.all().delete()
    for second in range(0, 120, 10):
        at = HOUR + timedelta(seconds=second)
        shared = {"at": at, "reports": 10}
        EngineSample.objects.create(
            partition=past.decode, deployment_id=past.deployment.pk, covered_s=10.0 if second else 9.0, **shared
        )
        for gpu in past.node.gpus.all():
            GpuSample.objects.create(gpu=gpu, **shared)
    past.asked(30, 20, path="aggregated", prefill="", prefill_ms=None, ttft_ms=5e3)
    now = HOUR + timedelta(minutes=4)
    rollup.advance(now.timestamp())
    counting.count(now)
    rows = of_hour()
    assert rows["active", "users", "bot"].gpu_s == pytest.approx(40)
    assert rows["reserved", "owners", None].gpu_s == pytest.approx(2 * 120 - 40)
    assert rows["idle", None, None].gpu_s == pytest.approx(3 * 120)


def test_a_price_costs_hours_to_come_and_hours_past(past: Past, actor: Actor) -> None:
    past.gpus_up()
    past.up(past.decode)
    past.asked(0, 40)
    counting.count(LATER)
    services.set_price(nodes=["alpha"], per_gpu_hour=Decimal("3.60"), since=HOUR + timedelta(minutes=5), actor=actor)
    rows = of_hour()
    assert rows["active", "users", "bot"].cost == Decimal("0.060000")
    assert sum(row.cost for row in rows.values()) == Decimal("18.000000"), "five GPUs at 3.60"
    services.set_price(nodes=["alpha"], per_gpu_hour=Decimal(9), since=HOUR + timedelta(hours=1), actor=actor)
    assert sum(row.cost for row in of_hour().values()) == Decimal("18.000000"), "the next price is of the next hour"
    services.set_price(nodes=["alpha"], per_gpu_hour=None, since=HOUR, reason="wrong", actor=actor)
    assert {row.cost for row in of_hour().values()} == {None}
    event = AuditEvent.objects.latest("id")
    assert (event.verb, event.before["per_gpu_hour"], event.reason) == ("set-price", "3.6000", "wrong")
    assert NodePrice.objects.count() == 2


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"nodes": []}, "nodes"),
        ({"nodes": ["beta"]}, "nodes"),
        ({"per_gpu_hour": Decimal(-1)}, "per_gpu_hour"),
        ({"per_gpu_hour": Decimal("NaN")}, "per_gpu_hour"),
        ({"since": HOUR + timedelta(days=9000)}, "since"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused(past: Past, actor: Actor, wrong: dict, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        services.set_price(**({"nodes": ["alpha"], "per_gpu_hour": Decimal(1)} | wrong), actor=actor)
    assert refused.value.problems[0].code == field
    assert not NodePrice.objects.exists()


def test_a_teams_month_is_its_keys_use_and_what_is_held_for_its_deployments(past: Past, actor: Actor) -> None:
    past.up(past.decode)
    past.asked(0, 40)
    services.set_price(nodes=["alpha"], per_gpu_hour=Decimal("3.60"), since=HOUR, actor=actor)
    counting.count(LATER)
    spent = {row.team.name: row.spent for row in TeamSpend.objects.select_related("team")}
    assert spent == {"users": Decimal("0.060000"), "owners": Decimal("7.140000")}
    services.set_price(nodes=["alpha"], per_gpu_hour=None, since=HOUR, actor=actor)
    assert TeamSpend.objects.get(team=past.user).unpriced_gpu_s == pytest.approx(60)
    counting.note_spending(HOUR + timedelta(days=31))
    assert set(TeamSpend.objects.values_list("spent", "unpriced_gpu_s")) == {(0, 0.0)}, "a new month"


def test_a_key_that_changes_its_team_leaves_what_was_counted_where_it_is(past: Past, actor: Actor) -> None:
    past.up(past.decode)
    past.asked(0, 40)
    counting.count(LATER)
    gateway.give_to_team(past.key.pk, team="owners", actor=actor)
    counting.count(LATER + timedelta(minutes=5))
    assert ("active", "users", "bot") in of_hour()
    with pytest.raises(Refused, match="usage on record"):
        teams.remove_team(past.user.pk, actor=actor)


def test_without_nodes_there_is_nothing_to_count_and_old_usage_goes(past: Past, settings: object) -> None:
    past.up(past.decode)
    counting.count(LATER)
    settings.USAGE_KEEP_DAYS = 30
    counting.prune(LATER + timedelta(days=29))
    assert UsageHour.objects.exists()
    counting.prune(LATER + timedelta(days=31))
    assert not UsageHour.objects.exists()
    Node.objects.all().delete()
    Counted.objects.all().delete()
    counting.count(LATER)
    assert UsageHour.objects.aggregate(Sum("gpu_s"))["gpu_s__sum"] is None
