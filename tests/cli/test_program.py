"""The program around the commands: help, completion, what it imports, tables."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from controlplane.cli.failures import Exit
from controlplane.cli.main import cli
from controlplane.cli.session import Session
from controlplane.cli.text import plain, size, span, table
from controlplane.cli.waiting import Progress
from tests.cli.conftest import Terminal
from tests.factories import make_deployment, make_node, make_partition

ROOT = Path(__file__).resolve().parent.parent.parent
NEITHER = """
import sys
import controlplane.cli.main
ours = [name for name in sys.modules if name.startswith("controlplane.") and not name.startswith("controlplane.cli")]
others = {"django", "rest_framework", "celery", "workers"} & set(sys.modules)
sys.exit(f"{ours} {others}" if ours or others else 0)
"""


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {key: value for key, value in os.environ.items() if not key.startswith(("FOREBAY_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=told | environment, capture_output=True, text=True, timeout=60
    )


def test_it_imports_nothing_of_the_server() -> None:
    ended = python("-c", NEITHER)
    assert ended.returncode == 0, ended.stderr


def test_it_runs_without_being_installed(tmp_path: Path) -> None:
    ended = python("-m", "controlplane.cli", "nodes", XDG_CONFIG_HOME=str(tmp_path))
    assert ended.returncode == 3
    assert "forebay login" in ended.stderr and "Traceback" not in ended.stderr


def test_the_help_of_each_command_tells_its_exit_codes_or_options() -> None:
    assert {
        "login", "logout", "status", "nodes", "models", "deployments", "partitions", "plan", "apply", "move", "undo",
        "changes", "resume", "rollback", "assign", "flip", "release", "cordon", "uncordon", "drain", "logs", "audit",
        "join-token", "alerts", "gpus", "qualify", "weights", "fetch", "capacity", "pool", "profile", "team", "cost",
        "price", "scaling", "backtest",
    } == set(cli.commands)  # fmt: skip
    groups = [command for command in cli.commands.values() if isinstance(command, click.Group)]
    alone = {name: command for name, command in cli.commands.items() if command not in groups}
    for name, command in [*alone.items(), *(one for group in groups for one in group.commands.items())]:
        with click.Context(command, info_name=name) as context:
            assert "--json" in command.get_help(context)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_for_forebay(shell: str) -> None:
    ended = python("-m", "controlplane.cli", _FOREBAY_COMPLETE=f"{shell}_source")
    assert ended.returncode == 0, ended.stderr
    assert "_FOREBAY_COMPLETE" in ended.stdout and "forebay" in ended.stdout


def completed(terminal: Terminal, *words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for key, value in terminal.environment.items():
        monkeypatch.setenv(key, value)
    shell = ShellComplete(cli, {"obj": Session(transport=terminal.transport)}, "forebay", "_FOREBAY_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_names_are_completed_by_the_server(viewer: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node("node-1")
    make_node("other")
    for name in ("p0", "p1"):
        make_partition(node, name=name)
    make_deployment("chat")
    assert completed(viewer, "flip", "node-1/", monkeypatch=monkeypatch) == ["node-1/p0", "node-1/p1"]
    assert completed(viewer, "assign", "node-1/p0", "c", monkeypatch=monkeypatch) == ["chat"]
    assert completed(viewer, "drain", "n", monkeypatch=monkeypatch) == ["node-1"]
    assert completed(viewer, "assign", "node-1/p0", "chat", "de", monkeypatch=monkeypatch) == ["decode"]


def test_completion_is_quiet_for_who_is_not_signed_in(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert completed(terminal, "flip", "n", monkeypatch=monkeypatch) == []


def test_the_exit_codes_are_those_that_the_manual_promises() -> None:
    manual = (ROOT / "docs" / "terminal.md").read_text()
    rows = [line.split("|")[1].strip() for line in manual.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert rows == [str(int(code)) for code in Exit]


def test_on_a_terminal_progress_is_one_line_that_is_wiped_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    monkeypatch.setenv("COLUMNS", "40")
    with os.fdopen(slave, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        progress = Progress(Session())
        progress.show("node-1/p0: starting, " + "loading weights " * 9, 3.0)
        progress.show("node-1/p0: ready", 4.0)
        progress.end()
        monkeypatch.undo()
    shown = ""
    while shown.count("\x1b[2K") < 3:  # a terminal gives what it has, bit by bit
        shown += os.read(master, 4096).decode()
    os.close(master)
    assert "\n" not in shown and shown.endswith("\r\x1b[2K")
    first, second = (line for line in shown.split("\r\x1b[2K") if line)
    assert first.startswith("node-1/p0: starting") and first.endswith("  3 s") and len(first) < 40
    assert second == "node-1/p0: ready  4 s"


def test_columns_line_up() -> None:
    assert table(("NAME", "N"), [("a", "1"), ("long name", "12")], right=(1,)) == (
        "NAME        N\na           1\nlong name  12"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\n", "a\tb\n"),
        ("\x1b[1;31mred\x1b[m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("x\r\x00\x7f\x85y", "xy"),
        ("\u202egnp.exe", "gnp.exe"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_units() -> None:
    assert [span(value) for value in (None, 0.84, 42, 119, 7199, 172_799, 864_000)] == [
        "-", "0.8 s", "42 s", "119 s", "119 min", "47 h", "10 d",
    ]  # fmt: skip
    assert [size(value) for value in (None, 0, 1023, 2**20, 80 * 2**30, 2**41)] == [
        "-", "0 B", "1023 B", "1.0 MiB", "80.0 GiB", "2.0 TiB",
    ]  # fmt: skip
