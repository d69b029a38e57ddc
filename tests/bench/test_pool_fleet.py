"""A few models on one simulated node: what the virtual clock, the agents and a real gateway make of them."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from django.db import connections

from bench import _pool_found as found
from bench._pool_run import Run
from bench._virtual import Clock, VirtualLoop
from bench.pool_fleet import EPOCH, LONGEST_S, SERVICE_S, SHIFT_S, copied, overlapping
from controlplane.domain.forecast.activity import Requests
from controlplane.fleet import reports
from controlplane.fleet.models import Activation, Partition
from controlplane.gateway import holding
from controlplane.gateway.models import RequestRecord

HOUR = 3600.0


Played = tuple[Run, dict[str, Any]]


@pytest.fixture
def played(transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Played:
    """a comes each quarter of an hour, b and c once an hour and together; an hour is played after two on record."""
    reports.forget()
    settings.POOL_EMPTIED = 99  # nobody finds an engine where it was left
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    clock = Clock(EPOCH)
    for where, name, read in clock.readers():
        monkeypatch.setattr(where, name, read)
    monkeypatch.setattr(holding, "ASK_S", holding.ASK_S)  # which the bench changes
    at = [EPOCH - 2 * HOUR + 900.0 * turn + 7.3 for turn in range(12)]
    at += [EPOCH - 2 * HOUR + HOUR * turn + 1203.7 for turn in range(3)] * 2
    requests = Requests.of(("a", "b", "c"), [0] * 12 + [1] * 3 + [2] * 3, at)

    async def play() -> Played:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        run = Run(requests, overlapping(requests), 1, 4, EPOCH, EPOCH + HOUR, 300.0, 1e9)
        await run.open()
        await run.play()
        told = found.found(run) | found.served(run) | found.left(run)
        await run.close()
        connections.close_all()  # those of the loop, which are others
        return run, told | found.after_close(run, loop, 1)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(play())


def test_everybody_is_served_once_in_a_time_that_starts_take_and_nothing_is_left(played: Played) -> None:
    _, told = played
    assert told["activations"] == told["requests"] == told["requests_recorded"] == told["engines_answered"] == 6
    assert told["woken"] + told["woken_ahead"] >= told["activations"]
    waits = RequestRecord.objects.filter(wake_ms__gt=0).values_list("wake_ms", flat=True)
    assert len(waits) == told["requests_that_waited"] > 0
    assert all(0.0 < wait < 12e3 for wait in waits), "a forked start takes 2.2 to 3 s, reports come each second"
    for name in (
        "failed", "given_up", "requests_failed", "requests_tried_again", "engines_refused", "engines_strayed",
        "engines_broken", "engines_left", "open_activations", "held_requests", "held_bytes", "in_flight",
        "engines_in_flight", "engines_nobody_wants", "pool_use_in_flight", "slots_without_their_engine", "unwritten",
        "tasks_left", "connections_left", "loop_errors", "threads_failing",
    ):  # fmt: skip
        assert told[name] == 0, name
    assert told["pool_use_rows"] == 3


def test_gpu_hours_are_those_of_the_pool_and_no_slot_had_two_models_at_once(played: Played) -> None:
    run, _ = played
    assert 0 < run.slot_s <= 4 * HOUR
    assert run.most_slots <= 4
    by_slot: dict[int, list[tuple[object, object]]] = {}
    for row in Activation.objects.order_by("placed_at"):
        assert row.placed_at is not None
        assert row.ended_at is None or row.ended_at >= row.placed_at
        by_slot.setdefault(row.partition_id or 0, []).append((row.placed_at, row.ended_at))
    for spans in by_slot.values():
        assert all(second[0] >= first[1] for first, second in pairwise(spans) if first[1])
    assert Partition.objects.count() == 4


def test_copies_are_the_same_each_time_and_the_first_is_the_client_itself() -> None:
    clients = Requests.of(("x", "y"), [0, 1, 0], [10_000.0, 20_000.0, 30_000.0])
    once, again = copied(clients, 5), copied(clients, 5)
    assert len(once.models) == 5
    assert np.array_equal(once.at, again.at)
    assert sorted(once.at[once.model < 2]) == [10_000.0, 20_000.0, 30_000.0]
    others = once.at[once.model == 3]
    assert abs(others[0] - 20_000.0) <= SHIFT_S + 30.0
    assert others[0] != 20_000.0


def test_bursts_that_overlap_are_one_request_and_a_model_is_at_work_at_the_same_times() -> None:
    at, until = [0.0, 50.0, 61.0, 100.0, 700.0, 1299.0], [60.0, 55.0, 62.0, 700.0, 1300.0, 1400.0]
    bursts = Requests.of(("x", "y"), [0, 0, 0, 0, 0, 0, 1], [*at, 50.0], [*until, 50.0])
    sent = overlapping(bursts)
    spans = sorted(zip(sent.model.tolist(), sent.at.tolist(), sent.until.tolist(), sent.number.tolist(), strict=True))
    assert spans == [(0, 0.0, 62.0, 3), (0, 100.0, 700.0, 1), (0, 700.0, 1400.0, 2), (1, 50.0, 50.0, 1)]
    assert all(end - begin <= LONGEST_S for _, begin, end, _ in spans)
    for second in np.arange(0.0, 1410.0, 0.5):
        busy, still = (
            ((one.model == 0) & (one.at <= second) & (second < one.until + SERVICE_S)).any() for one in (bursts, sent)
        )
        assert busy == still


def test_the_clock_goes_on_only_when_nothing_is_left_to_do_and_sockets_take_no_time() -> None:
    clock = Clock(EPOCH)

    async def talk() -> list[float]:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said = await reader.readline()
            await asyncio.sleep(600.0)
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"water\n")
        times = [clock.now]
        assert await reader.readline() == b"water\n"
        times.append(clock.now)
        times.append(await asyncio.get_running_loop().run_in_executor(None, lambda: clock.now))
        writer.close()
        server.close()
        return times

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        sent, heard, after = runner.run(talk())
    assert sent == EPOCH
    assert heard == after == pytest.approx(EPOCH + 600.0, abs=0.01)
