"""Several partitions at once from a terminal: planned, applied, followed, undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from django.contrib.auth.models import User

from controlplane.audit.services import Actor
from controlplane.cli.main import cli
from controlplane.cli.session import Session
from controlplane.domain.rollout import Move
from controlplane.domain.types import Role
from controlplane.fleet import services, versions
from controlplane.fleet.models import Change, Deployment, Node, Partition
from tests.cli.conftest import Terminal, Wire
from tests.factories import make_deployment, make_node, make_partition, make_ready


@pytest.fixture
def chat(db: None) -> Deployment:
    """Two prefill (p0, p1) and two decode engines (p2, p3) on node-1, ready; p4 is idle."""
    node, chat = make_node("node-1"), make_deployment("chat")
    for number, role in enumerate(["prefill", "prefill", "decode", "decode"]):
        make_ready(make_partition(node, deployment=chat, role=role, name=f"p{number}", generation=1))
    make_partition(node, name="p4")
    return chat


@pytest.fixture(autouse=True)
def agents(wire: Wire) -> None:
    """All agents do as they are told between two looks, and their reports carry changes on."""

    def look(path: str) -> None:
        if path.startswith(("/api/v1/changes/", "/api/v1/nodes")):
            confirm_all()

    wire.on_look = look


def confirm_all() -> None:
    draining = Partition.objects.filter(node__draining=True)
    draining.update(phase="exited")
    for row in Partition.objects.exclude(deployment=None).exclude(pk__in=draining):
        make_ready(row)
    Partition.objects.filter(deployment=None).update(phase="")
    services.advance_all()


def roles() -> list[str]:
    return [row.role for row in Partition.objects.filter(node__name="node-1").order_by("name")]


def elsewhere(actor: Actor, name: str, chat: Deployment, role: str = "decode") -> None:
    """Somebody else assigns that partition."""
    row = Partition.objects.get(name=name)
    services.assign(row.pk, deployment_id=chat.pk, role=role, actor=actor, reason="my turn")


def test_a_plan_of_several_moves_tells_steps_and_effects(viewer: Terminal, chat: Deployment) -> None:
    shown = viewer.ok("plan", "node-1/p2=chat:prefill", "node-1/p4=chat:decode")
    assert shown.startswith("2 partitions change")
    assert "1. Start an engine for chat decode on node-1/p4." in shown
    assert "2. Turn node-1/p2 from chat decode to chat prefill: its engine stays." in shown
    assert "chat prefill: 2 -> 3 engines" in shown
    assert roles() == ["prefill", "prefill", "decode", "decode", ""]


def test_apply_makes_all_moves_and_tells_each_step(operator: Terminal, chat: Deployment) -> None:
    words = ("apply", "node-1/p0=chat:decode", "node-1/p2=chat:prefill", "-m", "swap")
    assert "Nothing was changed." in operator.fails(130, *words, said="n\n")
    assert not Change.objects.exists()
    result = operator.run(*words, said="y\n")
    assert result.exit_code == 0, result.output
    change = Change.objects.get()
    assert f"Change {change.pk} is done after " in result.stdout and f"forebay undo {change.pk}" in result.stdout
    assert "1/2 node-1/p0: relabel, confirmed after" in result.stderr and "2/2 node-1/p2" in result.stderr
    assert roles() == ["decode", "prefill", "prefill", "decode", ""]
    assert (change.reason, change.state) == ("swap", "done")


def test_apply_for_programs(operator: Terminal, chat: Deployment) -> None:
    shown = operator.json("apply", "node-1/p2=chat:prefill", "--yes")
    assert set(shown) == {"change", "forced", "waited", "seconds"}
    assert (shown["change"]["state"], shown["waited"], shown["forced"]) == ("done", True, False)
    again = operator.json("apply", "node-1/p2=chat:prefill", "--yes")
    assert (again["change"], again["waited"]) == (None, False)
    assert "--yes" in operator.fails(2, "apply", "node-1/p2=none", "--json")


def test_a_kept_plan_is_applied_as_it_was_kept(operator: Terminal, chat: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    operator.ok("plan", "node-1/p2=chat:prefill", "--save", str(file))
    assert json.loads(file.read_text())["words"] == ["node-1/p2=chat:prefill"]
    operator.ok("apply", str(file), "-y")
    assert roles()[2] == "prefill"


def test_a_kept_plan_that_became_stale_is_4_and_tells_who(
    operator: Terminal, chat: Deployment, tmp_path: Path, actor: Actor
) -> None:
    file = tmp_path / "plan.json"
    operator.ok("plan", "node-1/p2=chat:prefill", "--save", str(file))
    elsewhere(actor, "p4", chat)
    assert "olga was faster: assign node-1/p4" in operator.fails(4, "apply", str(file), "-y")
    error = json.loads(operator.fails(4, "apply", str(file), "-y", "--json"))["error"]
    assert [(row["actor"], row["verb"], row["reason"]) for row in error["changes"]] == [("olga", "assign", "my turn")]
    assert roles()[2] == "decode"


def test_whoever_is_there_may_plan_again_on_the_fleet_as_it_is(
    operator: Terminal, chat: Deployment, tmp_path: Path, actor: Actor
) -> None:
    file = tmp_path / "plan.json"
    operator.ok("plan", "node-1/p2=chat:prefill", "--save", str(file))
    elsewhere(actor, "p4", chat)
    shown = operator.fails(4, "apply", str(file), said="y\nn\n")
    assert "olga did assign node-1/p4 at " in shown and "my turn" in shown and "Plan again?" in shown
    assert roles()[2] == "decode"
    assert operator.run("apply", str(file), said="y\ny\ny\n").exit_code == 0
    assert roles()[2] == "prefill"


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": "x", "moves": [], "server": "s"}'])
def test_a_file_that_is_no_plan_is_2(operator: Terminal, chat: Deployment, tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    assert "is no plan" in operator.fails(2, "apply", str(tmp_path / "plan.json"), "-y")


def test_a_plan_of_another_server_is_2(operator: Terminal, chat: Deployment, tmp_path: Path) -> None:
    kept = {"server": "https://other.example", "version": 1, "moves": []}
    (tmp_path / "plan.json").write_text(json.dumps(kept))
    assert "https://other.example" in operator.fails(2, "apply", str(tmp_path / "plan.json"), "-y")


@pytest.mark.parametrize("word", ["node-1/p0", "node-1/p0=", "node-1/p0=chat", "node-1/p0=chat:writer", "p0=none"])
def test_what_is_no_move_is_2(operator: Terminal, chat: Deployment, word: str) -> None:
    assert "Write NODE/PARTITION" in operator.fails(2, "plan", word)


def test_move_lets_the_server_choose_the_partitions(operator: Terminal, chat: Deployment) -> None:
    assert "1 partition changes" in operator.ok("move", "chat", "1", "decode", "prefill", "--dry-run")
    assert not Change.objects.exists()
    operator.ok("move", "chat", "1", "decode", "prefill", "-y")
    assert sorted(roles()) == ["", "decode", "prefill", "prefill", "prefill"]
    shown = operator.fails(1, "move", "chat", "7", "prefill", "decode", "-y")
    assert "Possible: 1, 2, 3" in shown


def test_move_to_another_deployment(operator: Terminal, chat: Deployment) -> None:
    make_deployment("other")
    operator.ok("move", "chat", "1", "decode", "decode", "--to", "other", "-y")
    assert Partition.objects.filter(deployment__name="other", role="decode").count() == 1


def test_undo_takes_back_my_last_change_and_again_the_one_before(operator: Terminal, chat: Deployment) -> None:
    operator.ok("apply", "node-1/p2=chat:prefill", "-y")
    operator.ok("apply", "node-1/p0=chat:decode", "-y")
    assert "Turn node-1/p0 from chat decode to chat prefill" in operator.ok("undo", "--dry-run")
    result = operator.run("undo", said="y\n")
    assert result.exit_code == 0 and "Undoing change" in result.stderr
    assert roles() == ["prefill", "prefill", "prefill", "decode", ""]
    operator.ok("undo", "-y")
    assert roles() == ["prefill", "prefill", "decode", "decode", ""]
    assert "no change of yours" in operator.fails(1, "undo", "-y")


def test_undo_by_number_may_redo(operator: Terminal, chat: Deployment) -> None:
    operator.ok("apply", "node-1/p2=chat:prefill", "-y")
    operator.ok("undo", "-y")
    operator.ok("undo", str(Change.objects.latest("pk").pk), "-y")
    assert roles()[2] == "prefill"


def test_undo_of_what_somebody_changed_since_is_4(operator: Terminal, chat: Deployment, actor: Actor) -> None:
    operator.ok("apply", "node-1/p4=chat:prefill", "-y")
    elsewhere(actor, "p4", chat)
    assert "olga changed it last" in operator.fails(4, "undo", "-y")


def test_a_flip_is_undone_like_any_change(operator: Terminal, chat: Deployment) -> None:
    shown = operator.json("flip", "node-1/p2")
    assert shown["change"] == Change.objects.get().pk
    operator.ok("undo", "-y")
    assert roles()[2] == "decode"


def test_a_change_of_slots_alone_is_undone(operator: Terminal, chat: Deployment) -> None:
    free = Partition.objects.get(name="p4")
    user = User.objects.get()
    by = Actor(name=user.username, source="api", user=user)
    services.apply_change([], version=versions.current(), actor=by, pool={free.pk: True})
    shown = operator.ok("undo", "--dry-run")
    assert "node-1/p4" in shown and "Nothing would change" not in shown
    free.refresh_from_db()
    assert free.pool, "a dry run only says it"
    operator.ok("undo", "-y")
    free.refresh_from_db()
    assert not free.pool
    assert "no change of yours" in operator.fails(1, "undo", "-y")


def test_changes_are_listed_and_one_is_told_with_its_steps(
    operator: Terminal, viewer: Terminal, chat: Deployment, actor: Actor
) -> None:
    assert operator.ok("changes") == "No such changes.\n"
    p2 = Partition.objects.get(name="p2")
    moves = [Move(p2.pk, chat.pk, Role.PREFILL)]
    change = services.apply_change(moves, version=versions.current(), actor=actor, reason="long prompts")
    listed = viewer.ok("changes", "--open")
    assert "node-1/p2=chat:prefill" in listed and "olga" in listed and "running" in listed
    assert viewer.ok("changes", "--actor", "pete") == "No such changes.\n"
    shown = viewer.ok("changes", str(change.pk), "--watch")
    assert "by olga" in shown and "long prompts" in shown and "State: done." in shown
    assert "chat as decode -> chat as prefill" in shown and "1. done: Turn node-1/p2" in shown
    assert viewer.json("changes")[0]["id"] == change.pk
    assert viewer.json("changes", str(change.pk))["state"] == "done"
    assert "forebay changes 7 --watch" in viewer.fails(2, "changes", "--watch")


def test_a_stopped_change_is_resumed_or_rolled_back(operator: Terminal, wire: Wire, chat: Deployment) -> None:
    well = wire.on_look

    def sick(path: str) -> None:
        row = Partition.objects.get(name="p2")
        if path.startswith("/api/v1/changes/") and row.role == "prefill":
            failed = {"phase": "exited", "restarts": row.restarts + 3, "message": "out of memory"}
            Partition.objects.filter(pk=row.pk).update(observed_generation=row.generation, **failed)
            services.advance_all()

    wire.on_look = sick
    shown = operator.fails(6, "apply", "node-1/p2=chat:prefill", "-y")
    number = Change.objects.get().pk
    assert f"Change {number} stopped." in shown and f"forebay resume {number}" in shown
    assert "stopped" in operator.fails(6, "resume", str(number))
    wire.on_look = well
    assert f"Change {number} is rolled back after " in operator.ok("rollback", str(number), "-m", "no")
    assert roles()[2] == "decode"
    assert "already" in operator.fails(1, "rollback", str(number))


def test_resume_goes_on(operator: Terminal, chat: Deployment) -> None:
    operator.ok("apply", "node-1/p2=chat:prefill", "-y", "--no-wait")
    Change.objects.update(state="stopped", message="for the test")
    assert " is done after " in operator.ok("resume", str(Change.objects.get().pk))


def test_drain_moves_engines_first_and_is_undone(operator: Terminal, chat: Deployment) -> None:
    """node-2 has room for one: the deployment keeps the engine that node-1 loses."""
    Partition.objects.filter(name__in=["p0", "p1", "p2"]).update(deployment=None, role="", phase="")
    make_partition(make_node("node-2"), name="q0")
    result = operator.run("drain", "node-1", "--move", "--deadline", "10m", said="y\n")
    assert result.exit_code == 0, result.output
    assert "node-1 is drained after " in result.stdout
    assert "Start an engine for chat decode on node-2/q0" in result.stderr
    assert Partition.objects.get(name="q0").deployment == chat
    assert Change.objects.get().kind == "drain"
    node = Node.objects.get(name="node-1")
    assert node.draining


def test_a_drain_has_a_deadline_and_is_called_off(operator: Terminal, wire: Wire, chat: Deployment) -> None:
    wire.on_look = lambda path: None
    shown = operator.json("drain", "node-1", "--deadline", "10m", "--no-wait", "--yes")
    assert set(shown) == {"node", "waited", "seconds", "change"} and shown["change"] is None
    sent = [json.loads(request.content) for request in wire.seen if request.url.path.endswith("/drain")]
    assert sent[-1]["deadline_s"] == 600
    assert operator.ok("drain", "node-1", "--cancel") == "node-1 is ready.\n"
    assert not Node.objects.get(name="node-1").draining
    assert "--cancel" in operator.fails(2, "drain", "node-1", "--cancel", "--move")


def test_moves_and_changes_are_completed(operator: Terminal, chat: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.ok("flip", "node-1/p2")
    for key, value in operator.environment.items():
        monkeypatch.setenv(key, value)

    def completed(*words: str) -> list[str]:
        shell = ShellComplete(cli, {"obj": Session(transport=operator.transport)}, "forebay", "_FOREBAY_COMPLETE")
        return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]

    assert completed("plan", "node-1/p4") == ["node-1/p4="]
    assert completed("apply", "node-1/p4=chat:de") == ["node-1/p4=chat:decode"]
    assert completed("plan", "node-1/p4=n") == ["node-1/p4=none"]
    assert completed("undo", "") == [str(Change.objects.get().pk)]
