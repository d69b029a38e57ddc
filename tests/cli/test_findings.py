from __future__ import annotations

from typing import Any

from controlplane.cli.findings import findings

UP = {"database": "up", "broker": "up"}


def partition(role: str | None = None, status: str = "unassigned", **more: Any) -> dict[str, Any]:
    deployment = {"id": 1, "name": "chat"} if role else None
    confirmed = status == "ready"
    return {
        "name": "p0", "deployment": deployment, "role": role, "status": status, "confirmed": confirmed, "message": "",
        "restarts": 0, "since_s": 4.0, **more,
    }  # fmt: skip


def gpu(**more: Any) -> dict[str, Any]:
    return {"index": 0, "present": True, "health": "ok", "health_detail": "", "foreign": False, **more}


def node(*partitions: dict[str, Any], status: str = "ready", gpus: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"name": "n", "status": status, "age_s": 42.0, "gpus": list(gpus), "partitions": list(partitions)}


def chat(**least: int) -> dict[str, Any]:
    return {"name": "chat", "mode": "dedicated", "min_prefill": 0, "min_decode": 0, "min_aggregated": 0, **least}


def kinds(*nodes: dict[str, Any], source: str = "live", health: Any = UP, **least: int) -> list[tuple[bool, str]]:
    found = findings(health, {"source": source, "nodes": list(nodes)}, [chat(**least)])
    return [(finding.wrong, finding.kind) for finding in found]


def test_a_pair_that_serves_has_nothing_wrong() -> None:
    assert kinds(node(partition("prefill", "ready"), partition("decode", "ready"), gpus=(gpu(),))) == []


def test_a_deployment_that_nobody_assigned_has_nothing_wrong() -> None:
    assert kinds(node(partition())) == []


def test_prefill_alone_serves_nobody() -> None:
    assert kinds(node(partition("prefill", "ready"))) == [(True, "serves-nobody")]


def test_a_decode_engine_serves_alone_but_that_is_told() -> None:
    assert kinds(node(partition("prefill", "crash_looping"), partition("decode", "ready"))) == [
        (True, "no-prefill"),
        (True, "crash-looping"),
    ]


def test_a_ready_engine_that_is_not_confirmed_serves_nobody() -> None:
    assert kinds(node(partition("decode", "ready", confirmed=False))) == [(True, "serves-nobody")]


def test_an_engine_that_the_pool_lends_serves_but_is_none_of_the_minimum() -> None:
    lent = partition("aggregated", "ready", overflow=True)
    assert kinds(node(lent)) == []
    assert kinds(node(lent), min_aggregated=1) == [(True, "under-minimum")]


def test_fewer_ready_than_the_minimum() -> None:
    assert kinds(node(partition("decode", "ready")), min_decode=2) == [(True, "under-minimum")]


def test_what_is_on_its_way_is_told_but_not_wrong() -> None:
    assert kinds(node(partition("decode", "ready"), partition("decode", "starting"))) == [(False, "partition-starting")]


def test_a_drained_node_is_told_once() -> None:
    assert kinds(node(partition(), status="drained")) == [(False, "node-drained")]
    draining = node(partition("decode", "draining"), status="draining")
    assert (False, "partition-draining") not in kinds(draining)


def test_a_silent_node_and_what_is_lost_with_it() -> None:
    assert kinds(node(partition("decode", "lost"), status="silent")) == [
        (True, "serves-nobody"),
        (True, "node-silent"),
        (True, "lost"),
    ]


def test_gpus() -> None:
    broken = (gpu(health="lost"), gpu(present=False), gpu(foreign=True), gpu(health="degraded"))
    assert [kind for _, kind in kinds(node(gpus=broken))] == ["gpu-lost", "gpu-missing", "gpu-foreign", "gpu-degraded"]


def test_the_server_comes_first() -> None:
    down = {"database": "up", "broker": "down"}
    assert kinds(node(status="silent"), source="database", health=down) == [
        (True, "broker-down"),
        (True, "node-silent"),
        (False, "no-live-figures"),
    ]


def test_the_brake_is_wrong_while_it_is_on_and_a_note_while_it_is_released() -> None:
    def found(**brake: Any) -> list[tuple[bool, str]]:
        live = {"source": "live", "at": 100.0, "nodes": [], "brake": {"text": "2 of 3 nodes fell silent.", **brake}}
        return [(finding.wrong, finding.kind) for finding in findings(UP, live, [])]

    assert found(on=True, tripped=True, released_until=None) == [(True, "brake")]
    assert found(on=False, tripped=True, released_until=400.0) == [(False, "brake-released")]
    assert found(on=False, tripped=False, released_until=None) == []
