"""What reaches the control plane of a gateway's own requests, and of the gateway itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from threading import Timer
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from controlplane.fleet import verified
from controlplane.fleet.models import GatewayBeat, Partition, PoolUse
from controlplane.gateway.telling import ASK_S, HURRY_S, Teller
from tests.factories import make_partition

pytestmark = pytest.mark.django_db


@contextmanager
def database_away() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise OperationalError("away")

    with connection.execute_wrapper(refuse):
        yield


def teller(name: str = "here:1") -> Teller:
    """As its thread would be; the test calls what the thread does."""
    made = Teller(list)
    made._gateway, made._address = name, "127.0.0.1:1"
    return made


def again(partition: Partition) -> Partition:
    partition.refresh_from_db()
    return partition


def test_findings_are_written_and_the_gateway_is_heard() -> None:
    good, bad, here = make_partition(generation=2, role="decode"), make_partition(generation=3, role="decode"), teller()
    here.tell(good.pk, 2, True)
    here.tell(bad.pk, 3, False, "no answer in time")
    here._take(0.0)
    here.flush()
    assert verified.is_verified(again(good))
    assert verified.message_of(again(bad)) == "no answer in time"
    assert verified.gateway_alive(timezone.now())


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_the_last_finding_is_kept() -> None:
    partition, here = make_partition(generation=2, role="decode"), teller()
    here.tell(partition.pk, 2, False, "no answer in time")
    here.tell(partition.pk, 2, True)
    here._take(0.0)
    with database_away():
        here.flush()
    assert not verified.is_verified(again(partition))
    here.flush()
    assert verified.is_verified(again(partition))


@pytest.mark.django_db(transaction=True)
def test_a_gateway_that_ends_says_so() -> None:
    here, there = teller(), teller("there:1")
    here.flush()
    there.flush()
    here._leave()
    assert list(GatewayBeat.objects.values_list("name", flat=True)) == ["there:1"]
    with database_away():
        there._leave()
    assert GatewayBeat.objects.exists(), "its silence will say it"


def test_beats_come_every_few_seconds_only() -> None:
    here = teller()
    here.flush()
    first = GatewayBeat.objects.get().seen_at
    here.flush()
    assert GatewayBeat.objects.get().seen_at == first
    assert 0 < here._pause_s() <= 2.0


def test_while_a_model_waits_for_a_slot_it_is_told_sooner_who_is_done_with_one() -> None:
    here, told, changed = teller(), [], list[tuple[str, int, float]]()
    here._uses = lambda: [changed.pop()] if changed else []
    here.idle_told = lambda: told.append(PoolUse.objects.get().in_flight)
    here.flush()
    assert here._pause_s() > HURRY_S
    changed.append(("chat", 0, 1.0))
    here.flush()
    assert told == [], "nobody waits for it"
    here.hurried = lambda: True
    changed.append(("chat", 1, 2.0))
    here.flush()
    assert told == [] and here._pause_s() == HURRY_S
    changed.append(("chat", 0, 3.0))
    here.flush()
    assert told == [0], "once it is written"
    here.flush()
    assert told == [0]


def test_a_model_that_waits_for_a_slot_is_not_asked_for_at_every_end_of_a_request() -> None:
    here, told, ended = teller(), [], 0
    here._uses = lambda: [("chat", 0, float(ended))] if ended else []
    here.idle_told = lambda: told.append(time.monotonic())
    here.hurried = lambda: True
    began = time.monotonic()
    while len(told) < 3:
        ended += 1
        here.flush()
        time.sleep(0.01)
    assert told[0] - began < ASK_S and all(b - a >= ASK_S for a, b in pairwise(told))
    ended += 1
    here.flush()
    assert len(told) == 3
    here._uses = list
    time.sleep(ASK_S)
    here.flush()
    assert len(told) == 4, "what came in between is told after that"
    here.flush()
    assert len(told) == 4


def test_a_teller_that_pauses_looks_at_once_when_a_model_begins_to_wait() -> None:
    here = teller()
    Timer(0.1, here.look).start()
    began = time.monotonic()
    assert here._take(30.0) and time.monotonic() - began < 10
    assert not here._untold
