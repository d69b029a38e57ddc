"""One run of the command: which server, which token, how it answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click
import httpx

from controlplane.cli import keep
from controlplane.cli.client import LOG_IN, Client
from controlplane.cli.failures import Exit, failure

DEFAULT_URL = "http://127.0.0.1:8000"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass
class Session:
    """`transport` and `pace` are for tests: another way to the server, and a quicker clock between looks."""

    transport: httpx.BaseTransport | None = None
    pace: float = 1.0
    json: bool = False
    _opened: list[Client] = field(default_factory=list)

    @cached_property
    def client(self) -> Client:
        """Signed in, by the environment or by `forebay login`."""
        url, token, plain_http = self._credentials()
        if not token:
            raise failure(Exit.ACCESS, f"You are not signed in at {url}.", LOG_IN)
        require_safe(url, plain_http)
        return self.at(url, token)

    def at(self, url: str, token: str = "") -> Client:
        client = Client(url, token, transport=self.transport, pace=self.pace)
        self._opened.append(client)
        return client

    def close(self) -> None:
        for client in self._opened:
            client.close()

    def answer(self, data: Any, text: Callable[[], str]) -> None:
        """The result on standard output, for whom it was asked."""
        click.echo(json.dumps(data, indent=2) if self.json else text())

    def say(self, text: str) -> None:
        """A remark for people, on standard error; programs are not told."""
        if not self.json:
            click.echo(text, err=True)

    def confirm(self, text: str, *, yes: bool) -> None:
        """Ask before something that ends engines. Who cannot be asked must say --yes."""
        if yes:
            return
        if self.json:
            raise failure(Exit.USAGE, f"{text} This needs your word.", "Say --yes.")
        try:
            if click.confirm(f"{text} Go on?", err=True):
                return
        except click.Abort:
            if sys.stdin.isatty():
                raise
            click.echo(err=True)  # end the line of the question
            raise failure(Exit.USAGE, "Nobody is there to confirm this.", "Say --yes.") from None
        self.say("Nothing was changed.")
        raise click.exceptions.Exit(Exit.INTERRUPTED)

    def ask(self, text: str) -> bool:
        """A question that may go unanswered: then it is no."""
        if self.json:
            return False
        try:
            return click.confirm(text, err=True)
        except click.Abort:
            if sys.stdin.isatty():
                raise
            click.echo(err=True)
            return False

    def _credentials(self) -> tuple[str, str, bool]:
        """A kept token goes only to the server that gave it."""
        asked, token = os.environ.get("FOREBAY_URL", ""), os.environ.get("FOREBAY_TOKEN", "")
        agreed = os.environ.get("FOREBAY_PLAIN_HTTP") == "1"
        if asked and token:
            return cleaned(asked), token, agreed
        kept = keep.read()
        url = cleaned(asked or (kept.url if kept else DEFAULT_URL))
        if token or kept is None or kept.url != url:
            return url, token, agreed
        return url, kept.token, agreed or kept.plain_http


pass_session = click.make_pass_decorator(Session, ensure=True)


def cleaned(text: str) -> str:
    """An address as people write it, as the one form that is kept and compared."""
    try:
        url = httpx.URL(text.strip().rstrip("/"))
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise failure(Exit.USAGE, f"{text!r} is no address of a server.", "Write it as https://forebay.example.")
    if url.userinfo:
        raise failure(Exit.USAGE, "An address with a password in it is not taken.", "Leave out what is before the @.")
    return str(url).rstrip("/")


def require_safe(url: str, agreed: bool) -> None:
    """Passwords and tokens do not travel unencrypted unless the person said so."""
    parsed = httpx.URL(url)
    if agreed or parsed.scheme == "https" or parsed.host in LOOPBACK:
        return
    message = f"{url} is not encrypted: whoever listens would learn your password and token."
    fix = "Use https. In a network you trust: forebay login --plain-http, or FOREBAY_PLAIN_HTTP=1."
    raise failure(Exit.ACCESS, message, fix)
