"""What a machine is told by its environment, and what its parts are told in turn."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from controlplane.management import machine, valkey
from controlplane.management.steps import StepFailed


def told(tmp_path: Path, environ: dict[str, str]) -> dict[str, str]:
    here = machine.read(environ, tmp_path)
    return machine.variables(here, environ, valkey_password="word")


def test_everything_is_on_loopback_unless_asked_otherwise(tmp_path: Path) -> None:
    here = machine.read({}, tmp_path)
    assert here.is_loopback
    assert here.valkey_host == "127.0.0.1"
    made = told(tmp_path, {})
    assert made["FOREBAY_PUBLIC_URL"] == "http://127.0.0.1:8000"
    assert made["FOREBAY_REDIS_URL"] == "redis://:word@127.0.0.1:8002/0"
    assert "FOREBAY_HOSTS" not in made


def test_another_loopback_address_is_one_that_the_web_process_answers_to(tmp_path: Path) -> None:
    made = told(tmp_path, {"FOREBAY_HOST": "127.0.0.2"})
    assert "127.0.0.2" in made["FOREBAY_HOSTS"].split(",")


def test_a_machine_open_to_others_keeps_its_broker_to_itself(tmp_path: Path) -> None:
    made = told(tmp_path, {"FOREBAY_HOST": "192.0.2.7"})
    assert made["FOREBAY_NODE_BROKER_URL"] == ""
    assert "192.0.2.7" in made["FOREBAY_HOSTS"].split(",")
    assert made["FOREBAY_PUBLIC_URL"] == "http://192.0.2.7:8000"


def test_a_broker_opened_on_purpose_is_offered_to_nodes(tmp_path: Path) -> None:
    made = told(tmp_path, {"FOREBAY_HOST": "192.0.2.7", "FOREBAY_VALKEY_HOST": "192.0.2.7"})
    assert made["FOREBAY_NODE_BROKER_URL"] == "redis://:word@192.0.2.7:8002/0"


def test_programs_on_this_machine_do_not_go_by_its_public_address(tmp_path: Path) -> None:
    here = machine.read({"FOREBAY_HOST": "0.0.0.0", "FOREBAY_PUBLIC_URL": "https://fleet.example"}, tmp_path)
    assert here.web_url == "http://127.0.0.1:8000"
    assert here.gateway_url == "http://127.0.0.1:8001"


def test_what_the_person_set_is_never_changed(tmp_path: Path) -> None:
    mine = {"FOREBAY_PUBLIC_URL": "https://fleet.example", "FOREBAY_REDIS_URL": "redis://elsewhere:6379/3"}
    made = told(tmp_path, mine)
    assert made.items() >= mine.items()
    assert made[machine.PREPARED] == "external"
    assert not machine.read(mine, tmp_path).embedded_valkey


def test_the_embedded_broker_is_still_known_once_its_address_was_told(tmp_path: Path) -> None:
    assert machine.read(told(tmp_path, {}), tmp_path).embedded_valkey


@pytest.mark.parametrize("text", ["0", "70000", "http", "-1", ""])
def test_a_port_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(StepFailed, match="FOREBAY_WEB_PORT"):
        machine.read({"FOREBAY_WEB_PORT": text}, tmp_path)


def test_a_taken_port_says_who_has_it_and_how_to_choose_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "LEFTOVER_S", 0.0)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        here = machine.read({"FOREBAY_WEB_PORT": str(port)}, tmp_path)
        with pytest.raises(StepFailed, match=rf"Port {port} is taken.*pid {os.getpid()}") as refused:
            machine.require_free_ports(here)
    assert "FOREBAY_WEB_PORT=" in refused.value.fix


def test_the_valkey_password_is_made_once_and_private(tmp_path: Path) -> None:
    first = valkey.password(tmp_path)
    assert valkey.password(tmp_path) == first
    assert len(first) >= 32
    for path in (tmp_path / "valkey", tmp_path / "valkey" / "password"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_the_configuration_holds_no_plain_password_and_no_open_user(tmp_path: Path) -> None:
    users = tmp_path / "valkey" / "users.acl"
    users.parent.mkdir()
    users.write_text("user default on nopass ~* +@all\n")

    _, config = valkey.command(machine.read({}, tmp_path))

    assert "nopass" not in users.read_text()
    assert valkey.password(tmp_path) not in users.read_text() + Path(config).read_text()
    assert "bind 127.0.0.1" in Path(config).read_text()
