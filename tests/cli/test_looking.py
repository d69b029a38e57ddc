from __future__ import annotations

import pytest

from controlplane.audit.services import Actor
from controlplane.fleet import services
from tests.cli.conftest import URL, Terminal
from tests.factories import make_deployment, make_gpu, make_model, make_node, make_partition, make_ready

LIVE_PARTITION = {
    "partition", "node", "id", "name", "gpus", "deployment", "role", "status", "phase", "confirmed", "generation",
    "observed_generation", "since_s", "restarts", "message", "ready_after_s", "engine", "memory_bytes",
}  # fmt: skip


@pytest.fixture
def fleet(db: None) -> None:
    """A pair that serves `chat`, and an idle partition."""
    chat = make_deployment("chat", model=make_model("smollm2"))
    node = make_node("node-1", labels={"rack": "b12"})
    make_ready(make_partition(node, deployment=chat, role="prefill", name="p0"))
    make_ready(make_partition(node, deployment=chat, role="decode", name="p1"))
    make_partition(node, name="p2")


def test_status_of_a_healthy_fleet(viewer: Terminal, fleet: None) -> None:
    shown = viewer.ok("status")
    assert f"{URL} at " in shown
    assert "Nodes     1, 0 silent" in shown
    assert "GPUs      3: 2 assigned, 1 idle, 0 unhealthy" in shown
    assert "Engines   2 ready of 2 assigned" in shown


def test_status_tells_that_the_broker_is_down(viewer: Terminal, fleet: None) -> None:
    assert "its broker is down" in viewer.ok("status")


def test_status_names_what_is_wrong_and_where_to_look(viewer: Terminal) -> None:
    chat = make_deployment("chat", min_decode=2)
    alpha = make_node("alpha")
    make_gpu(alpha, health="lost", health_detail="fell off the bus")
    make_ready(make_partition(alpha, deployment=chat, role="decode", name="p0"))
    crashed = make_partition(alpha, deployment=chat, role="decode", name="p1", phase="exited", restarts=3)
    crashed.message = "CUDA out of memory"
    crashed.save()
    make_node("beta", heard=False)
    shown = viewer.json("status")
    assert set(shown) == {"url", "at", "source", "health", "summary", "engines", "wrong", "notes"}
    wrong = {(entry["kind"], entry["subject"]): entry for entry in shown["wrong"]}
    assert wrong["crash-looping", "alpha/p1"]["look"] == "forebay logs alpha/p1"
    assert "CUDA out of memory" in wrong["crash-looping", "alpha/p1"]["text"]
    assert "fell off the bus" in wrong["gpu-lost", "alpha/gpu0"]["text"]
    assert wrong["node-silent", "beta"]
    assert "1 decode ready, and its minimum is 2" in wrong["under-minimum", "chat"]["text"]
    text = viewer.ok("status")
    assert "crash-looping, 3 starts in a row failed" in text and "Nothing is wrong" not in text


def test_nodes(viewer: Terminal, fleet: None) -> None:
    header, row = viewer.ok("nodes").splitlines()
    assert header.split() == ["NODE", "STATUS", "HEARD", "GPUS", "ENGINES", "CPU", "MEMORY", "ENGINE", "LABELS"]
    assert row.split()[:2] == ["node-1", "ready"] and "2/2" in row and "rack=b12" in row
    assert header.index("LABELS") == row.index("rack=b12")


def test_nodes_for_programs(viewer: Terminal, fleet: None) -> None:
    (row,) = viewer.json("nodes")
    assert {"id", "name", "status", "age_s", "gpus", "partitions", "host", "labels", "generation"} <= set(row)


def test_partitions(viewer: Terminal, fleet: None) -> None:
    rows = [line.split()[:5] for line in viewer.ok("partitions").splitlines()[1:]]
    assert rows == [
        ["node-1/p0", "1", "chat", "prefill", "ready"],
        ["node-1/p1", "1", "chat", "decode", "ready"],
        ["node-1/p2", "1", "-", "-", "unassigned"],
    ]


def test_partitions_for_programs(viewer: Terminal, fleet: None) -> None:
    rows = viewer.json("partitions")
    assert [row["partition"] for row in rows] == ["node-1/p0", "node-1/p1", "node-1/p2"]
    assert set(rows[0]) >= LIVE_PARTITION


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--role", "decode"), ["node-1/p1"]),
        (("--deployment", "chat"), ["node-1/p0", "node-1/p1"]),
        (("--status", "unassigned"), ["node-1/p2"]),
        (("--node", "node-1", "--role", "prefill"), ["node-1/p0"]),
        (("--node", "other"), []),
    ],
)
def test_partitions_can_be_narrowed(viewer: Terminal, fleet: None, words: tuple[str, ...], expected: list[str]) -> None:
    assert [row["partition"] for row in viewer.json("partitions", *words)] == expected


def test_models(viewer: Terminal, fleet: None) -> None:
    header, row = viewer.ok("models").splitlines()
    assert header.split()[:2] == ["MODEL", "WEIGHTS"]
    assert row.startswith("smollm2") and "257 MiB" in row and "bfloat16" in row and "8,192" in row and "chat" in row
    (entry,) = viewer.json("models")
    assert set(entry) >= {"id", "name", "kind", "source", "revision", "facts", "deployments", "created_at"}


def test_deployments(viewer: Terminal, fleet: None) -> None:
    row = viewer.ok("deployments").splitlines()[1].split()
    assert row[:6] == ["chat", "smollm2", "dedicated", "1/1", "1/1", "0/0"]
    assert row[6] == "0/0"  # lent
    (entry,) = viewer.json("deployments")
    assert entry["replicas"]["decode"] == {"assigned": 1, "confirmed": 1}
    assert entry["ready"] == {"prefill": 1, "decode": 1, "aggregated": 0, "lent": 0}


def test_an_engine_that_the_pool_lends_counts_for_no_role(viewer: Terminal) -> None:
    chat = make_deployment("chat")
    make_ready(make_partition(deployment=chat, role="aggregated", pool=True, overflow=True))
    assert viewer.ok("deployments").splitlines()[1].split()[3:7] == ["0/0", "0/0", "0/0", "1/1"]
    assert "Engines   1 ready of 1 assigned" in viewer.ok("status")


def test_the_engines_of_a_silent_node_do_not_count_as_ready(viewer: Terminal) -> None:
    make_ready(make_partition(make_node(heard=False), deployment=make_deployment("chat"), role="decode"))
    assert viewer.ok("deployments").splitlines()[1].split()[4] == "0/1"
    assert "Engines   0 ready of 1 assigned" in viewer.ok("status")


def test_all_pages_of_a_list_are_read(viewer: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.cli.client.PAGE", 2)
    for at in range(5):
        make_deployment(f"d{at}")
    assert [row["name"] for row in viewer.json("deployments")] == ["d0", "d1", "d2", "d3", "d4"]


@pytest.mark.parametrize("command", ["nodes", "partitions", "models", "deployments", "audit"])
def test_an_empty_fleet_says_so(viewer: Terminal, command: str) -> None:
    assert viewer.json(command) == []
    assert viewer.ok(command).strip().endswith((".", "NODE"))


def test_the_words_of_others_cannot_steer_the_terminal(viewer: Terminal) -> None:
    node = make_node("alpha")
    make_partition(node, role="decode", message="\x1b[2J\x1b]0;owned\x07red\nalert \x9b31m")
    for command in ("partitions", "status"):
        shown = viewer.ok(command)
        assert "red alert" in shown
        assert not {"\x1b", "\x07", "\x9b"} & set(shown)
        assert "owned" not in shown


def test_audit_is_narrowed_and_cut(operator: Terminal, actor: Actor) -> None:
    chat = make_deployment("chat")
    partition = make_partition(make_node("node-1"), name="p0")
    services.assign(partition.pk, deployment_id=chat.pk, role="decode", actor=actor, reason="more tokens")
    services.release(partition.pk, actor=actor, reason="night")
    assert [row["verb"] for row in operator.json("audit")][:2] == ["release", "assign"]
    (row,) = operator.json("audit", "--verb", "assign", "--subject", "node-1/p0", "--actor", "olga", "--since", "1h")
    assert row["reason"] == "more tokens"
    assert set(row) >= {"id", "at", "actor", "source", "verb", "subject_name", "reason", "before", "after", "detail"}
    line = operator.ok("audit", "--verb", "assign").splitlines()[1]
    assert "olga" in line and "node-1/p0" in line and "deployment=chat role=decode" in line and "more tokens" in line
    assert len(operator.json("audit", "-n", "1")) == 1
    assert operator.json("audit", "--until", "2020-01-01") == []
    assert "reason: night" in operator.ok("audit", "--details")


@pytest.mark.parametrize("words", [("--since", "yesterday"), ("--source", "moon"), ("--since", "999999999d")])
def test_audit_refuses_filters_that_make_no_sense(viewer: Terminal, words: tuple[str, ...]) -> None:
    viewer.fails(2, "audit", *words)
