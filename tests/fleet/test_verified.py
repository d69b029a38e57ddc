"""What gateways tell of the engines they asked, and of themselves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.fleet import verified
from controlplane.fleet.models import GatewayBeat, Partition
from controlplane.fleet.verified import FAILURES, Verification
from tests.factories import make_partition

pytestmark = pytest.mark.django_db


def fill(generation: int = 7) -> Partition:
    return make_partition(role="decode", generation=generation)


def again(partition: Partition) -> Partition:
    partition.refresh_from_db()
    return partition


def test_an_engine_that_answered_is_verified_at_that_generation() -> None:
    partition, now = fill(), timezone.now()
    assert verified.record(partition.pk, 7, True, now=now)
    assert verified.state(again(partition)) == Verification.VERIFIED
    assert (partition.verified_generation, partition.verified_at) == (7, now)


def test_what_is_told_of_another_generation_is_not_believed() -> None:
    partition = fill()
    assert not verified.record(partition.pk, 6, True)
    assert not verified.record(partition.pk, 6, False, "no answer")
    assert not verified.is_verified(again(partition))
    assert verified.message_of(partition) == ""
    assert not verified.record(partition.pk + 1, 7, True)


def test_a_change_has_to_be_verified_anew() -> None:
    partition = fill()
    verified.record(partition.pk, 7, True)
    Partition.objects.filter(pk=partition.pk).update(generation=8)
    verified.beat("here:1", "", timezone.now())
    assert verified.state(again(partition)) == Verification.PENDING


def test_a_few_failures_in_a_row_are_a_failure() -> None:
    partition = fill()
    verified.beat("here:1", "", timezone.now())
    for _ in range(FAILURES - 1):
        verified.record(partition.pk, 7, False, "no answer in time")
        assert verified.state(again(partition)) == Verification.PENDING
    verified.record(partition.pk, 7, False, "no answer in time")
    assert verified.state(again(partition)) == Verification.FAILED
    assert verified.message_of(partition) == "no answer in time"


def test_an_answer_ends_the_failures() -> None:
    partition = fill()
    for _ in range(FAILURES):
        verified.record(partition.pk, 7, False, "no answer in time")
    verified.record(partition.pk, 7, True)
    assert verified.state(again(partition)) == Verification.VERIFIED
    assert verified.message_of(partition) == ""


def test_failures_of_a_generation_before_do_not_count() -> None:
    partition = fill()
    verified.beat("here:1", "", timezone.now())
    for _ in range(FAILURES):
        verified.record(partition.pk, 7, False, "no answer in time")
    Partition.objects.filter(pk=partition.pk).update(generation=8)
    assert verified.state(again(partition)) == Verification.PENDING
    assert verified.message_of(partition) == ""
    verified.record(partition.pk, 8, False, "refused")
    assert again(partition).verify_failures == 1


def test_a_message_is_cut_to_what_the_column_holds() -> None:
    partition = fill()
    verified.record(partition.pk, 7, False, "\0" + "x" * 999)
    assert verified.message_of(again(partition)) == "x" * verified.MESSAGE


def test_nothing_assigned_is_nothing_to_verify() -> None:
    partition = make_partition(generation=3)
    assert verified.state(partition) == Verification.VERIFIED
    assert not verified.is_verified(partition)


def test_without_a_gateway_nobody_waits_for_one() -> None:
    partition, now = fill(), timezone.now()
    assert verified.state(partition, now) == Verification.NO_GATEWAY
    verified.beat("here:1", "127.0.0.1:1", now)
    assert verified.state(partition, now) == Verification.PENDING
    later = now + timedelta(seconds=verified.ALIVE_S + 0.1)
    assert verified.state(partition, later) == Verification.NO_GATEWAY


def test_one_gateway_of_several_is_enough() -> None:
    now = timezone.now()
    verified.beat("here:1", "", now - timedelta(minutes=1))
    assert not verified.gateway_alive(now)
    verified.beat("there:1", "", now)
    assert verified.gateway_alive(now)
    verified.ended("there:1")
    assert not verified.gateway_alive(now)


def test_a_gateway_has_one_row_until_it_is_forgotten() -> None:
    now = timezone.now()
    for second in range(3):
        verified.beat("here:1", f"127.0.0.1:{second}", now + timedelta(seconds=second))
    (row,) = GatewayBeat.objects.all()
    assert (row.address, row.seen_at) == ("127.0.0.1:2", now + timedelta(seconds=2))
    verified.forget_gateways(now + timedelta(hours=23))
    assert GatewayBeat.objects.exists()
    verified.forget_gateways(now + timedelta(days=2))
    assert not GatewayBeat.objects.exists()
