"""Servers that are away, are not ours, or answer what nobody expects."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from controlplane.api.models import KeptAnswer
from controlplane.audit.models import AuditEvent
from controlplane.fleet import services
from tests.cli.conftest import Terminal, Wire
from tests.factories import make_deployment, make_node, make_partition, make_ready

Answer = Callable[[httpx.Request], httpx.Response]
TOKEN = "t" * 64


def stranger(folder: Path, answer: Answer) -> Terminal:
    environment = {"FOREBAY_URL": "https://forebay.example", "FOREBAY_TOKEN": TOKEN}
    return Terminal(folder, httpx.MockTransport(answer), environment, [TOKEN])


def raises(error: type[httpx.TransportError]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("out of luck", request=request)

    return answer


def test_no_server_at_the_address_is_5(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        terminal = Terminal(tmp_path, httpx.HTTPTransport(), secrets=[TOKEN])
        terminal.environment = {
            "FOREBAY_URL": f"http://127.0.0.1:{taken.getsockname()[1]}", "FOREBAY_TOKEN": TOKEN,
        }  # fmt: skip
        shown = terminal.fails(5, "status")
    assert "cannot be reached" in shown and "FOREBAY_URL" in shown


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_a_server_that_does_not_answer_is_5(tmp_path: Path, error: type[httpx.TransportError]) -> None:
    assert "does not answer" in stranger(tmp_path, raises(error)).fails(5, "nodes")


def test_an_answer_lost_after_a_write_says_that_it_may_have_been_done(operator: Terminal, wire: Wire) -> None:
    make_node("node-1")

    def lost(path: str) -> None:
        raise httpx.ReadTimeout("no answer")

    wire.on_send = lost
    assert "may or may not have been done" in operator.fails(5, "cordon", "node-1")
    sent = [request for request in wire.seen if request.method == "POST"]
    assert len(sent) == 6 and len({request.headers["Idempotency-Key"] for request in sent}) == 1


def test_a_write_whose_answer_was_lost_is_sent_again_and_done_once(operator: Terminal, wire: Wire) -> None:
    make_node("node-1")
    wire.lose_answers = 1
    assert operator.ok("cordon", "node-1") == "node-1 is cordoned.\n"
    assert AuditEvent.objects.filter(verb="cordon").count() == 1
    assert len([request for request in wire.seen if request.method == "POST"]) == 2


def test_a_write_that_was_never_sent_is_not_tried_again(operator: Terminal, wire: Wire) -> None:
    make_node("node-1")

    def refused(path: str) -> None:
        raise httpx.ConnectError("connection refused")

    wire.on_send = refused
    shown = operator.fails(5, "cordon", "node-1")
    assert "cannot be reached" in shown and "may or may not" not in shown
    assert len([request for request in wire.seen if request.method == "POST"]) == 1


def test_while_the_first_sending_still_runs_its_answer_is_waited_for(operator: Terminal, wire: Wire) -> None:
    node = make_node("node-1")
    wire.lose_answers = 1
    sent: list[str] = []

    def again(path: str) -> None:
        """The second sending finds the first at work, the third finds it done."""
        sent.append(path)
        if len(sent) == 2:
            KeptAnswer.objects.update(status=None)
        elif len(sent) == 3:
            KeptAnswer.objects.update(status=200)

    wire.on_send = again
    assert operator.ok("cordon", "node-1") == "node-1 is cordoned.\n"
    assert len(sent) == 3
    node.refresh_from_db()
    assert not node.schedulable


def test_a_redirect_is_not_followed_with_the_token(tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(302, headers={"location": "https://evil.example/api/v1/live"})

    assert "redirects to https://evil.example" in stranger(tmp_path, answer).fails(5, "nodes")
    assert seen == ["forebay.example"]


def test_the_next_page_is_asked_of_the_same_server(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.url.params.get("page", "1")))
        following = "https://evil.example/api/v1/models?page=2" if len(seen) == 1 else None
        return httpx.Response(200, json={"next": following, "results": []})

    stranger(tmp_path, answer).ok("models")
    assert seen == [("forebay.example", "1"), ("forebay.example", "2")]


@pytest.mark.parametrize(
    "response", [httpx.Response(200, text="<html>"), httpx.Response(200, json=[1]), httpx.Response(502, text="bad")]
)
def test_what_is_no_forebay_is_5(tmp_path: Path, response: httpx.Response) -> None:
    stranger(tmp_path, lambda request: response).fails(5, "nodes")


def test_an_error_for_programs_is_one_object_on_standard_error(tmp_path: Path) -> None:
    result = stranger(tmp_path, raises(httpx.ConnectError)).run("nodes", "--json")
    assert (result.exit_code, result.stdout) == (5, "")
    assert json.loads(result.stderr)["error"]["exit"] == 5


def test_a_wrong_token_is_3_and_says_how_to_sign_in(terminal: Terminal) -> None:
    terminal.environment = {"FOREBAY_URL": "http://127.0.0.1:8000", "FOREBAY_TOKEN": TOKEN}
    assert "forebay login" in terminal.fails(3, "nodes")


def test_an_account_without_a_role_is_3(terminal: Terminal) -> None:
    terminal.sign_in("")
    assert "needs the role viewer" in terminal.fails(3, "nodes")


def test_a_server_that_is_away_for_a_moment_does_not_end_the_wait(operator: Terminal, wire: Wire) -> None:
    chat = make_deployment("chat")
    partition = make_partition(make_node("node-1"), name="p0")
    looks: list[str] = []

    def look(path: str) -> None:
        if path.startswith("/api/v1/changes/"):
            looks.append(path)
            if len(looks) < 3:
                raise httpx.ConnectError("restarting")
            partition.refresh_from_db()
            make_ready(partition)
            services.advance_all()

    wire.on_look = look
    result = operator.run("assign", "node-1/p0", chat.name, "decode")
    assert result.exit_code == 0, result.output
    assert "the server does not answer" in result.stderr


def test_a_server_that_stays_away_ends_the_wait_with_5(operator: Terminal, wire: Wire) -> None:
    chat = make_deployment("chat")
    make_partition(make_node("node-1"), name="p0")

    def look(path: str) -> None:
        if path.startswith("/api/v1/changes/"):
            raise httpx.ConnectError("gone")

    wire.on_look = look
    assert "cannot be reached" in operator.fails(5, "assign", "node-1/p0", chat.name, "decode", "--timeout", "0.1")
