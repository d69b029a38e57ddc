"""The command, run in this process against the real URLs of the control plane, over WSGI."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from django.core.cache import cache
from django.test.client import ClientHandler

from controlplane.cli.main import cli
from controlplane.cli.session import Session
from tests.factories import make_token, make_user

URL = "http://127.0.0.1:8000"


class Application:
    """The control plane as a WSGI program that leaves the test's own database connection open."""

    def __init__(self) -> None:
        self._handler = ClientHandler(enforce_csrf_checks=True)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        response = self._handler(environ)
        start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
        return [response.getvalue()]


class Wire(httpx.BaseTransport):
    """To the real application. `on_look` is called before each GET: what the fleet does between two looks."""

    def __init__(self) -> None:
        self._inner = httpx.WSGITransport(app=Application(), remote_addr="127.0.0.1")
        self.on_look: Callable[[str], None] = lambda path: None
        self.on_send: Callable[[str], None] = lambda path: None
        self.seen: list[httpx.Request] = []
        self.lose_answers = 0  # to so many writes, after they were carried out

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        (self.on_look if request.method == "GET" else self.on_send)(request.url.path)
        response = self._inner.handle_request(request)
        if request.method != "GET" and self.lose_answers:
            self.lose_answers -= 1
            raise httpx.RemoteProtocolError("the connection broke")
        return response


@dataclass
class Terminal:
    """Somebody at a shell. Whatever is run, neither a token nor a password may be shown."""

    folder: Path
    transport: httpx.BaseTransport
    environment: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    def sign_in(self, role: str = "operator") -> None:
        token = make_token(make_user(role))
        self.secrets.append(token)
        self.environment |= {"FOREBAY_URL": URL, "FOREBAY_TOKEN": token}

    def run(self, *words: str, said: str | None = None) -> Result:
        environment = {"XDG_CONFIG_HOME": str(self.folder), "FOREBAY_URL": None, "FOREBAY_TOKEN": None}
        session = Session(transport=self.transport, pace=0.01)
        runner = CliRunner(env={**environment, **self.environment})
        result = runner.invoke(cli, list(words), input=said, obj=session, prog_name="forebay")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        for secret in self.secrets:
            assert secret not in result.output, "a secret was shown"
        return result

    def ok(self, *words: str, said: str | None = None) -> str:
        result = self.run(*words, said=said)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *words: str) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        assert result.stderr == "", "a program gets the answer and nothing else"
        return json.loads(result.stdout)

    def fails(self, code: int, *words: str, said: str | None = None) -> str:
        result = self.run(*words, said=said)
        assert result.exit_code == code, (result.exit_code, result.output)
        return result.stderr


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def terminal(db: None, tmp_path: Path, wire: Wire) -> Iterator[Terminal]:
    """Signed in as nobody yet."""
    cache.clear()
    yield Terminal(tmp_path, wire)
    cache.clear()


@pytest.fixture
def operator(terminal: Terminal) -> Terminal:
    terminal.sign_in("operator")
    return terminal


@pytest.fixture
def viewer(terminal: Terminal) -> Terminal:
    terminal.sign_in("viewer")
    return terminal


@pytest.fixture
def admin(terminal: Terminal) -> Terminal:
    terminal.sign_in("admin")
    return terminal
