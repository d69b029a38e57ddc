from __future__ import annotations

import json

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Change, Deployment, Node, Partition
from tests.cli.conftest import Terminal, Wire
from tests.factories import make_deployment, make_node, make_partition, make_ready

PARTITION = {
    "id", "node", "name", "gpus", "deployment", "role", "pinned", "pool", "status", "confirmed", "phase", "phase_since",
    "generation", "observed_generation", "restarts", "message", "ready_after_s", "engine_version", "endpoint",
}  # fmt: skip


@pytest.fixture
def node(db: None) -> Node:
    return make_node("node-1")


@pytest.fixture
def chat(db: None) -> Deployment:
    return make_deployment("chat")


@pytest.fixture
def p0(node: Node, chat: Deployment) -> Partition:
    """Prefill of chat; another prefill and a decode are there too."""
    for role in ("prefill", "decode"):
        make_ready(make_partition(node, deployment=chat, role=role, name=f"other-{role}"))
    return make_ready(make_partition(node, deployment=chat, role="prefill", name="p0"))


@pytest.fixture
def idle(node: Node) -> Partition:
    return make_partition(node, name="p9")


def agent_confirms(wire: Wire, partition: Partition, after_looks: int = 3) -> list[str]:
    """What its agent reports between looks: first that the engine starts, then that it is ready. A report carries the
    change on."""
    looks: list[str] = []

    def look(path: str) -> None:
        if not path.startswith("/api/v1/changes/"):
            return
        looks.append(path)
        for other in Partition.objects.filter(phase="ready").exclude(pk=partition.pk):
            make_ready(other)  # the node's first spec gave all of them a new generation
        partition.refresh_from_db()
        if len(looks) < after_looks:
            starting = {"phase": "starting", "message": f"loading weights {len(looks)}", "phase_since": timezone.now()}
            Partition.objects.filter(pk=partition.pk).update(observed_generation=partition.generation, **starting)
        else:
            make_ready(partition, message="")
        services.advance_all()

    wire.on_look = look
    return looks


def desired(partition: Partition) -> tuple[str | None, str]:
    partition.refresh_from_db()
    return (partition.deployment.name if partition.deployment else None, partition.role)


def test_plan_says_what_would_happen_and_changes_nothing(operator: Terminal, chat: Deployment, idle: Partition) -> None:
    shown = operator.ok("plan", "node-1/p9", "chat", "decode")
    assert "1 partition changes" in shown and "1. Start an engine for chat decode on node-1/p9." in shown
    assert "Memory of one GPU of node-1/p9: fits, needs " in shown
    assert desired(idle) == (None, "")


def test_plan_for_programs(operator: Terminal, p0: Partition) -> None:
    shown = operator.json("plan", "node-1/p0", "chat", "decode")
    assert set(shown) >= {"version", "moves", "steps", "effects", "problems", "forceable", "warnings", "expected_s"}
    assert (shown["moves"][0]["action"], shown["moves"][0]["after"]["role"]) == ("relabel", "decode")


def test_plan_tells_how_long_earlier_starts_took(operator: Terminal, p0: Partition, idle: Partition) -> None:
    Partition.objects.exclude(pk=idle.pk).update(ready_after_s=42.0)
    assert "about 42 s in all" in operator.ok("plan", "node-1/p9", "chat", "prefill")


def test_plan_is_1_where_the_rules_refuse(operator: Terminal, node: Node, idle: Partition, chat: Deployment) -> None:
    Node.objects.filter(pk=node.pk).update(schedulable=False)
    result = operator.run("plan", "node-1/p9", "chat", "decode")
    assert result.exit_code == 1
    assert "Against it" in result.stdout and "cordoned" in result.stdout


def test_assign_waits_until_the_agent_confirms(
    operator: Terminal, wire: Wire, idle: Partition, chat: Deployment
) -> None:
    looks = agent_confirms(wire, idle)
    result = operator.run("assign", "node-1/p9", "chat", "decode", "--reason", "more tokens")
    assert result.exit_code == 0, result.output
    assert len(looks) == 3
    assert "node-1/p9 runs chat as decode: confirmed after " in result.stdout
    assert "node-1/p9: starting, 0 s\n" in result.stderr
    assert desired(idle) == ("chat", "decode")
    event = AuditEvent.objects.get(verb="assign")
    assert (event.reason, event.source) == ("more tokens", "rest")


def test_assign_for_programs(operator: Terminal, wire: Wire, idle: Partition, chat: Deployment) -> None:
    agent_confirms(wire, idle)
    shown = operator.json("assign", "node-1/p9", "chat", "decode")
    assert set(shown) == {"partition", "before", "after", "action", "forced", "waited", "seconds", "change"}
    assert set(shown["partition"]) >= PARTITION
    assert shown["partition"]["confirmed"] is True
    assert isinstance(shown["seconds"], float) and shown["waited"] is True and shown["forced"] is False


def test_assign_without_waiting(operator: Terminal, idle: Partition, chat: Deployment) -> None:
    shown = operator.json("assign", "node-1/p9", "chat", "decode", "--no-wait")
    assert (shown["waited"], shown["seconds"], shown["partition"]["confirmed"]) == (False, None, False)


def test_flip_turns_prefill_into_decode_and_back(operator: Terminal, wire: Wire, p0: Partition) -> None:
    for role in ("decode", "prefill"):
        agent_confirms(wire, p0, after_looks=1)
        shown = operator.ok("flip", "node-1/p0")
        assert f"node-1/p0 runs chat as {role}: confirmed after 0." in shown and "(relabel)" in shown
        assert desired(p0) == ("chat", role)


def test_flip_to_a_role_may_be_repeated(operator: Terminal, p0: Partition) -> None:
    shown = operator.json("flip", "node-1/p0", "prefill")
    assert shown["action"] == "none" and shown["partition"]["role"] == "prefill"
    assert not AuditEvent.objects.filter(verb="assign").exists()


@pytest.mark.parametrize(("role", "said"), [("", "unassigned"), ("aggregated", "has no opposite")])
def test_flip_refuses_what_has_no_opposite(operator: Terminal, node: Node, role: str, said: str) -> None:
    make_partition(node, name="p5", role=role)
    assert said in operator.fails(1, "flip", "node-1/p5")


def test_an_engine_ends_only_after_a_yes(operator: Terminal, wire: Wire, p0: Partition) -> None:
    make_deployment("other")
    words = ("assign", "node-1/p0", "other", "prefill", "--no-wait")
    shown = operator.fails(130, *words, said="n\n")
    assert "Drain node-1/p0 (chat prefill), stop its engine" in shown and "Nothing was changed." in shown
    assert desired(p0) == ("chat", "prefill")
    operator.ok(*words, said="y\n")
    assert desired(p0) == ("other", "prefill")


def test_where_nobody_can_be_asked_it_takes_yes(operator: Terminal, p0: Partition) -> None:
    make_deployment("other")
    words = ("assign", "node-1/p0", "other", "prefill", "--no-wait")
    assert "--yes" in operator.fails(2, *words, said="")
    assert "--yes" in operator.fails(2, *words, "--json")
    assert desired(p0) == ("chat", "prefill")
    operator.ok(*words, "--yes")
    assert desired(p0) == ("other", "prefill")


def test_the_last_of_a_role_is_flipped_only_after_a_yes(operator: Terminal, node: Node, chat: Deployment) -> None:
    last = make_ready(make_partition(node, deployment=chat, role="decode", name="p0"))
    make_ready(make_partition(node, deployment=chat, role="aggregated", name="p1"))
    assert "takes the last decode replica of chat." in operator.fails(130, "flip", "node-1/p0", said="n\n")
    assert desired(last) == ("chat", "decode")


def test_what_nobody_else_would_answer_is_flipped_only_by_force(
    operator: Terminal, node: Node, chat: Deployment
) -> None:
    last = make_ready(make_partition(node, deployment=chat, role="decode", name="p0"))
    shown = operator.fails(1, "flip", "node-1/p0", "--yes")
    assert "Nothing would answer requests for chat any more." in shown and "--force overrides this" in shown
    assert desired(last) == ("chat", "decode")
    operator.ok("flip", "node-1/p0", "--yes", "--force", "--no-wait")
    assert desired(last) == ("chat", "prefill")


def test_a_refusal_is_1_with_the_reason_and_the_fix(
    operator: Terminal, node: Node, idle: Partition, chat: Deployment
) -> None:
    Node.objects.filter(pk=node.pk).update(schedulable=False)
    shown = operator.fails(1, "assign", "node-1/p9", "chat", "decode")
    assert "Error: " in shown and "cordoned" in shown and "Fix: " in shown
    error = json.loads(operator.fails(1, "assign", "node-1/p9", "chat", "decode", "--json"))["error"]
    assert set(error) == {"exit", "problems", "request_id"} and error["exit"] == 1
    assert set(error["problems"][0]) == {"message", "fix", "forceable"}
    assert desired(idle) == (None, "")


def test_force_overrides_what_can_be_overridden(operator: Terminal, p0: Partition, idle: Partition) -> None:
    Deployment.objects.update(max_decode=1)
    words = ("assign", "node-1/p9", "chat", "decode", "--no-wait")
    assert "--force overrides this" in operator.fails(1, *words)
    assert operator.json(*words, "--force")["forced"] is True
    assert desired(idle) == ("chat", "decode")


def test_who_was_slower_gets_4(operator: Terminal, wire: Wire, idle: Partition, chat: Deployment, actor: Actor) -> None:
    def meanwhile(path: str) -> None:
        """Between the preview and the assignment somebody else assigns it."""
        if len([request for request in wire.seen if request.method == "POST"]) == 2:
            services.assign(idle.pk, deployment_id=chat.pk, role="prefill", actor=actor)

    wire.on_send = meanwhile
    shown = operator.fails(4, "assign", "node-1/p9", "chat", "decode")
    assert "olga was faster: assign node-1/p9 at " in shown and "Plan again" in shown
    assert desired(idle) == ("chat", "prefill")


def test_somebody_who_rolls_it_back_ends_the_wait_with_4(
    operator: Terminal, wire: Wire, idle: Partition, chat: Deployment, actor: Actor
) -> None:
    def look(path: str) -> None:
        if path.startswith("/api/v1/changes/"):
            if not Change.objects.get().backwards:
                services.roll_back_change(Change.objects.get().pk, actor=actor)
            Partition.objects.filter(pk=idle.pk).update(phase="")
            services.advance_all()

    wire.on_look = look
    assert "Somebody rolled change" in operator.fails(4, "assign", "node-1/p9", "chat", "decode")


def test_running_out_of_time_is_6_and_the_change_stands(operator: Terminal, idle: Partition, chat: Deployment) -> None:
    shown = operator.fails(6, "assign", "node-1/p9", "chat", "decode", "--timeout", "0.1")
    assert "After 0.1 s change " in shown and " still runs: node-1/p9: " in shown and "goes on by itself" in shown
    assert desired(idle) == ("chat", "decode")


def test_a_crash_loop_ends_the_wait_with_6(operator: Terminal, wire: Wire, idle: Partition, chat: Deployment) -> None:
    def look(path: str) -> None:
        row = Partition.objects.get(pk=idle.pk)
        failed = {"phase": "exited", "restarts": 3, "message": "CUDA out of memory"}
        Partition.objects.filter(pk=idle.pk).update(observed_generation=row.generation, **failed)
        services.advance_all()

    wire.on_look = look
    shown = operator.fails(6, "assign", "node-1/p9", "chat", "decode")
    number = Change.objects.get().pk
    assert f"Change {number} stopped. The engine of node-1/p9 failed 3 times in a row: CUDA out of memory" in shown
    assert f"forebay resume {number}, or: forebay rollback {number}" in shown


def test_ctrl_c_while_waiting_is_130_and_the_change_stands(
    operator: Terminal, wire: Wire, idle: Partition, chat: Deployment
) -> None:
    def look(path: str) -> None:
        if path.startswith("/api/v1/changes/"):
            raise KeyboardInterrupt

    wire.on_look = look
    assert "stands" in operator.fails(130, "assign", "node-1/p9", "chat", "decode")
    assert desired(idle) == ("chat", "decode")


def test_viewers_may_change_nothing(viewer: Terminal, p0: Partition) -> None:
    for words in (
        ("apply", "node-1/p0=chat:decode", "-y"),
        ("move", "chat", "1", "prefill", "decode", "-y"),
        ("assign", "node-1/p0", "chat", "decode"),
        ("flip", "node-1/p0"),
        ("release", "node-1/p0", "-y"),
        ("cordon", "node-1"),
        ("uncordon", "node-1"),
        ("drain", "node-1", "-y"),
        ("join-token", "node-2"),
    ):
        assert "needs the role" in viewer.fails(3, *words)
    assert "1 partition changes" in viewer.ok("plan", "node-1/p0", "chat", "decode")
    assert desired(p0) == ("chat", "prefill")


def test_release_asks_then_waits_until_the_engine_has_ended(operator: Terminal, wire: Wire, p0: Partition) -> None:
    def look(path: str) -> None:
        row = Partition.objects.get(pk=p0.pk)
        if row.deployment is None:
            phase = {"ready": "draining", "draining": "exited"}.get(row.phase, row.phase)
            Partition.objects.filter(pk=p0.pk).update(phase=phase)

    wire.on_look = look
    assert "its engine ends" in operator.fails(130, "release", "node-1/p0", said="\n")
    assert desired(p0) == ("chat", "prefill")
    shown = operator.ok("release", "node-1/p0", "-m", "night", said="y\n")
    assert "node-1/p0 is empty after " in shown
    assert desired(p0) == (None, "")
    assert AuditEvent.objects.get(verb="release").reason == "night"


def test_release_for_programs(operator: Terminal, p0: Partition) -> None:
    shown = operator.json("release", "node-1/p0", "--yes", "--no-wait")
    assert set(shown) == {"partition", "waited", "seconds"} and set(shown["partition"]) >= PARTITION


def test_release_warns_of_the_last_of_a_role(operator: Terminal, node: Node, chat: Deployment) -> None:
    make_ready(make_partition(node, deployment=chat, role="decode", name="p0"))
    assert "the last decode partition of chat" in operator.fails(130, "release", "node-1/p0", said="n\n")


def test_cordon_and_uncordon(operator: Terminal, node: Node) -> None:
    assert operator.ok("cordon", "node-1", "-m", "fan") == "node-1 is cordoned.\n"
    assert AuditEvent.objects.get(verb="cordon").reason == "fan"
    shown = operator.json("uncordon", "node-1")
    assert set(shown) == {"node", "waited", "seconds"}
    assert (shown["node"]["name"], shown["node"]["status"]) == ("node-1", "ready")


def test_drain_asks_then_waits_until_no_engine_is_left(
    operator: Terminal, wire: Wire, node: Node, p0: Partition
) -> None:
    def look(path: str) -> None:
        if Node.objects.get(pk=node.pk).draining:
            running = Partition.objects.filter(node=node, phase="ready").first()
            if running:
                Partition.objects.filter(pk=running.pk).update(phase="exited")

    wire.on_look = look
    shown = operator.fails(130, "drain", "node-1", said="n\n")
    assert "3 engines that will end" in shown
    assert not Node.objects.get(pk=node.pk).draining
    assert "node-1 is drained after " in operator.ok("drain", "node-1", "--yes")
    assert desired(p0) == ("chat", "prefill")


def test_drain_is_6_when_time_runs_out_and_4_when_somebody_ends_it(
    operator: Terminal, wire: Wire, node: Node, p0: Partition, actor: Actor
) -> None:
    assert "still: node-1: draining" in operator.fails(6, "drain", "node-1", "-y", "--timeout", "0")

    def look(path: str) -> None:
        if Node.objects.get(pk=node.pk).draining and wire.seen[-2].method == "POST":
            services.uncordon(node.pk, actor=actor)

    wire.on_look = look
    assert "ended the drain" in operator.fails(4, "drain", "node-1", "-y")


def test_join_token_is_the_command_to_run(admin: Terminal) -> None:
    result = admin.run("join-token", "node-7", "--for", "15m")
    assert result.exit_code == 0
    assert result.stdout.startswith("python -m workers join http") and "--name node-7" in result.stdout
    assert result.stdout.count("\n") == 1
    assert "works once" in result.stderr
    shown = admin.json("join-token", "node-8")
    assert {"id", "node_name", "state", "expires_at", "token", "command"} <= set(shown)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("assign", "node-1/p7", "chat", "decode"), "There is no partition node-1/p7."),
        (("assign", "node-1/p9", "chatt", "decode"), "Did you mean chat?"),
        (("assign", "p9", "chat", "decode"), "Write NODE/PARTITION"),
        (("flip", "node-2/p9"), "Did you mean node-1/p9?"),
        (("cordon", "node-2"), "Did you mean node-1?"),
        (("assign", "node-1/p9", "chat", "writer"), "'writer' is not one of"),
        (("join-token", "Not a name"), "Error"),
        (("login", "--for", "soon"), "30m"),
        (("frobnicate",), "No such command"),
    ],
)
def test_what_makes_no_sense_is_2(
    admin: Terminal, idle: Partition, chat: Deployment, words: tuple[str, ...], said: str
) -> None:
    assert said in admin.fails(2, *words)
