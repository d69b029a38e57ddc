"""Wait until the fleet is as asked, telling meanwhile how far it is."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

import click

from controlplane.cli.client import Row, retried
from controlplane.cli.failures import Exit, Failure, failure
from controlplane.cli.session import Session
from controlplane.cli.text import plain, span, word

LOOK_AGAIN = "What you asked for stands. Wait on with a longer --timeout, or look at: forebay status"
QUICK_S = 10.0  # a relabel takes a second or two and is timed; an engine's start is not worth four looks a second


class Progress:
    """On a terminal one line that is written anew; elsewhere a line for each change."""

    def __init__(self, session: Session) -> None:
        self._quiet = session.json
        self._live = sys.stderr.isatty()
        self._last = ""

    def show(self, what: str, seconds: float, *, key: str | None = None) -> None:
        """`key`: what must differ for a new line, where `what` holds a count of its own."""
        what = " ".join(plain(what).split())
        news = what if key is None else key
        if self._quiet or (news == self._last and not self._live):
            return
        if self._live:
            room = max(shutil.get_terminal_size().columns - 12, 20)  # a line that wraps cannot be written anew
            click.echo(f"\r\x1b[2K{what[:room]}  {seconds:.0f} s", nl=False, err=True)
        else:
            click.echo(what, err=True)
        self._last = news

    def end(self) -> None:
        if self._live and self._last:
            click.echo("\r\x1b[2K", nl=False, err=True)


def wait(
    session: Session, name: str, read: Callable[[], Row], done: Callable[[Row], bool], *, timeout_s: float, since: float
) -> tuple[Row, float]:
    """The row once it is `done`, and the seconds from `since` until that was seen. `done` raises Failure where it can
    never come. A server that is away for a moment is waited for as well."""
    progress = Progress(session)
    try:
        while True:
            found = retried(read)
            seconds = time.monotonic() - since
            if not isinstance(found, Failure) and done(found):
                return found, round(seconds, 2)
            if seconds >= timeout_s:
                raise _out_of_time(name, found, timeout_s)
            progress.show(_told(name, found), seconds)
            time.sleep(session.pace / 4 if seconds < QUICK_S else session.pace)
    finally:
        progress.end()


def _told(name: str, found: Row | Failure) -> str:
    if isinstance(found, Failure):
        return f"{name}: the server does not answer"
    message = f", {found['message']}" if found.get("message") else ""
    return f"{name}: {word(found['status'])}{message}"


def _out_of_time(name: str, found: Row | Failure, timeout_s: float) -> Failure:
    if isinstance(found, Failure):
        return found
    return failure(Exit.NOT_REACHED, f"After {span(timeout_s)} it is still: {_told(name, found)}.", LOOK_AGAIN)
