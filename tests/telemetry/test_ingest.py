from __future__ import annotations

import math

import pytest

from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.windows import Closed
from tests.telemetry.reports import T0, replica, report, sample

NODE, P = 7, 3


def closed(ingest: Ingest, key: str | int, now: float = T0 + 100) -> list[Closed]:
    return [window for window in ingest.close(now) if window.key == key]


def test_a_window_holds_the_mean_of_its_samples(ingest: Ingest) -> None:
    for second, utilization in enumerate((0.2, 0.4, 0.9)):
        ingest.accept(NODE, report(NODE, second, samples=(sample("g", utilization, power_w=100.0),)), T0 + second)
    (window,) = closed(ingest, "g")
    assert window.at == T0
    assert window.values["utilization"] == pytest.approx(0.5)
    assert window.values["power_w"] == 100.0


def test_unknown_is_left_out_of_the_mean_and_is_not_zero(ingest: Ingest) -> None:
    for second, utilization in enumerate((None, 0.4, math.nan)):
        ingest.accept(NODE, report(NODE, second, samples=(sample("g", utilization),)), T0 + second)
    (window,) = closed(ingest, "g")
    assert window.values["utilization"] == 0.4
    assert window.values["temperature_c"] is None


def test_a_window_closes_only_when_it_is_over(ingest: Ingest) -> None:
    ingest.accept(NODE, report(NODE, 1, samples=(sample("g"),)), T0 + 9.9)
    ingest.accept(NODE, report(NODE, 2, samples=(sample("g"),)), T0 + 10.1)
    assert [window.at for window in ingest.close(T0 + 10.5)] == [T0]
    assert [window.at for window in ingest.close(T0 + 20.5)] == [T0 + 10]
    assert ingest.close(T0 + 30.5) == []


def test_a_silent_node_leaves_no_window(ingest: Ingest) -> None:
    ingest.accept(NODE, report(NODE, 1, samples=(sample("g"),)), T0)
    ingest.accept(NODE, report(NODE, 2, samples=(sample("g"),)), T0 + 35)
    assert [window.at for window in closed(ingest, "g")] == [T0, T0 + 30]


def test_a_repeated_report_counts_once(ingest: Ingest) -> None:
    one = report(NODE, 5, samples=(sample("g", 1.0),))
    assert ingest.accept(NODE, one, T0) is not None
    assert ingest.accept(NODE, one, T0 + 1) is None


def test_a_late_report_is_dropped(ingest: Ingest) -> None:
    ingest.accept(NODE, report(NODE, 5), T0)
    assert ingest.accept(NODE, report(NODE, 4), T0 + 1) is None
    assert ingest.accept(NODE, report(NODE, 6), T0 + 2) is not None


def test_a_restarted_agent_may_count_from_one_again(ingest: Ingest) -> None:
    ingest.accept(NODE, report(NODE, 500, boot="a"), T0)
    assert ingest.accept(NODE, report(NODE, 1, boot="b"), T0 + 1) is not None


def test_what_still_arrives_of_the_boot_before_is_late(ingest: Ingest) -> None:
    ingest.accept(NODE, report(NODE, 500, boot="a"), T0)
    ingest.accept(NODE, report(NODE, 1, boot="b"), T0 + 1)
    assert ingest.accept(NODE, report(NODE, 501, boot="a"), T0 + 2) is None


def test_engine_totals_become_rates_in_the_window_and_live(ingest: Ingest) -> None:
    live = None
    for second in range(5):
        status = replica(P, generation_tokens_total=100.0 + 50 * second, running=2.0, kv_usage=0.1 * second)
        live = ingest.accept(NODE, report(NODE, second, replicas=(status,)), T0 + second)
    assert live is not None
    assert live.engines[P].generation_tps == 50.0
    assert live.engines[P].running == 2.0
    assert live.process_bytes[P] == 1_000_000
    (window,) = closed(ingest, P)
    assert window.values["generation_tps"] == 50.0
    assert window.values["kv_usage"] == pytest.approx(0.2)
    assert window.values["prompt_tps"] is None


def test_an_engine_that_restarted_within_the_window_is_counted_on_both_sides(ingest: Ingest) -> None:
    totals = [(100, 1000.0), (100, 1100.0), (200, 0.0), (200, 60.0)]  # pid, total
    for second, (pid, total) in enumerate(totals):
        status = replica(P, pid=pid, generation_tokens_total=total)
        ingest.accept(NODE, report(NODE, second, replicas=(status,)), T0 + second)
    (window,) = closed(ingest, P)
    assert window.values["generation_tps"] == pytest.approx((100 + 60) / 2)


def test_latency_in_a_window_weighs_requests_not_reports(ingest: Ingest) -> None:
    for second, (seconds, count) in enumerate([(0.0, 0.0), (1.0, 1.0), (1.9, 10.0)]):
        status = replica(P, ttft_sum_s=seconds, ttft_count=count)
        ingest.accept(NODE, report(NODE, second, replicas=(status,)), T0 + second)
    (window,) = closed(ingest, P)
    assert window.values["ttft_ms"] == pytest.approx(190.0)


def test_an_agent_restart_keeps_the_rates_of_engines_it_adopted(ingest: Ingest) -> None:
    ingest.accept(NODE, report(NODE, 9, boot="a", replicas=(replica(P, generation_tokens_total=10.0),)), T0)
    live = ingest.accept(NODE, report(NODE, 1, boot="b", replicas=(replica(P, generation_tokens_total=20.0),)), T0 + 2)
    assert live is not None
    assert live.engines[P].generation_tps == 5.0


def test_clock_skew_is_told(ingest: Ingest) -> None:
    live = ingest.accept(NODE, report(NODE, 1, at=T0 + 42.0), T0)
    assert live is not None
    assert live.skew_s == pytest.approx(42.0)


def test_reports_that_waited_count_as_if_each_had_been_taken_at_once(ingest: Ingest) -> None:
    """Two nodes, over the end of a window, one engine restarted and one gone in between."""
    at_once = Ingest(10)
    for second in range(6, 14):
        for node in (NODE, NODE + 1):
            restarted, gone = second >= 9, node == NODE and second >= 11
            status = replica(P + node, pid=200 if restarted else 100, running=1.0, requests_total=7.0 * (second % 9))
            uuids = ("g", "h") if second < 12 else ("h",)
            samples = tuple(sample(uuid, second / 20, power_w=None if second == 8 else 9.0) for uuid in uuids)
            said = report(node, second, samples=samples, replicas=() if gone else (status,))
            ingest.put(node, said, T0 + second)
            ingest.put(node, said, T0 + second)
            at_once.accept(node, said, T0 + second)
    assert {one.seen for one in ingest.pop_latest().values()} == {T0 + 13}
    assert sorted(map(repr, ingest.close(T0 + 100))) == sorted(map(repr, at_once.close(T0 + 100)))


def test_what_a_report_names_twice_counts_once(ingest: Ingest) -> None:
    twice = (sample("g", 0.2), sample("h", 0.5), sample("g", 0.4))
    engines = (replica(P, running=1.0), replica(P, running=3.0))
    live = ingest.accept(NODE, report(NODE, 1, samples=twice, replicas=engines), T0)
    assert live is not None and (live.devices["g"].utilization, live.engines[P].running) == (0.4, 3.0)
    told = {window.key: window.values for window in ingest.close(T0 + 100)}
    assert (told["g"]["utilization"], told["g"]["reports"], told[P]["running"]) == (0.4, 1, 3.0)


def test_numbers_beyond_all_measure_are_unknown(ingest: Ingest) -> None:
    lie = sample("g", 0.5, memory_used_bytes=10**400)
    status = replica(P, pid=10**30, running=1e300, requests_total=math.inf)
    ingest.accept(NODE, report(NODE, 1, samples=(lie,), replicas=(status,)), T0)
    told = {window.key: window.values for window in ingest.close(T0 + 100)}
    assert (told["g"]["utilization"], told["g"]["memory_used_bytes"], told[P]["running"]) == (0.5, None, None)


def test_more_nodes_and_engines_than_there_was_room_for(ingest: Ingest) -> None:
    for second in range(2):
        for node in range(1, 301):
            status = replica(node, running=float(node), requests_total=float(node * second))
            ingest.put(node, report(node, second, samples=(sample("g", node / 300),), replicas=(status,)), T0 + second)
    closed = {(window.node, window.key): window.values for window in ingest.close(T0 + 100)}
    assert len(closed) == 600
    assert closed[299, 299]["requests_ps"] == 299.0 and closed[299, "g"]["utilization"] == pytest.approx(299 / 300)


def test_an_engine_in_the_place_of_one_that_is_gone_begins_anew(ingest: Ingest) -> None:
    ingest.accept(NODE, report(NODE, 1, replicas=(replica(P, requests_total=1.0),)), T0)
    ingest.accept(NODE, report(NODE, 2), T0 + 1)
    ingest.accept(NODE, report(NODE, 3, replicas=(replica(P + 1, requests_total=50.0),)), T0 + 2)
    assert closed(ingest, P + 1)[0].values["requests_ps"] is None
