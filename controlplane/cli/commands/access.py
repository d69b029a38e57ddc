"""Sign in and out."""

from __future__ import annotations

import os
import sys

import click

from controlplane.cli import keep
from controlplane.cli.client import Row
from controlplane.cli.failures import Exit, Failure, Problem, failure
from controlplane.cli.options import Length, json_option
from controlplane.cli.session import DEFAULT_URL, Session, cleaned, pass_session, require_safe
from controlplane.cli.text import moment, plain

_FIXES = {"otp_required": "Say it with --otp.", "otp_wrong": "Wait for the next code and try again."}


@click.command()
@click.argument("url", required=False)
@click.option("-u", "--username", help="Asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--otp", help="The code of your authenticator app; asked for where it is not given.")
@click.option(
    "--for", "seconds", type=Length(), default="30d", show_default=True, help="How long the token is valid: 12h, 30d."
)
@click.option(
    "--scope", type=click.Choice(["read", "operate", "admin"]), help="The most the token is good for; else your role."
)
@click.option("--plain-http", is_flag=True, help="Send password and token unencrypted: networks you trust only.")
@json_option
@pass_session
def login(
    session: Session,
    *,
    url: str | None,
    username: str | None,
    password_stdin: bool,
    otp: str | None,
    seconds: int,
    scope: str | None,
    plain_http: bool,
) -> None:
    """Sign in at URL and keep a token for this computer's user.

    Without URL: FOREBAY_URL, else the server of last time, else http://127.0.0.1:8000.
    """
    old = _kept_or_none()
    url = cleaned(url or os.environ.get("FOREBAY_URL") or (old.url if old else DEFAULT_URL))
    require_safe(url, plain_http)
    username = username or click.prompt("Username", err=True)
    if ":" in username:
        raise failure(Exit.USAGE, "A username has no colon.")
    wanted: Row = (
        {"expires_in_s": seconds, "name": "forebay login"}
        | ({"scope": scope} if scope else {})
        | ({"otp": otp} if otp else {})
    )
    token = _new_token(session, url, username, _password(password_stdin), wanted)
    me = session.at(url, token["token"]).get("me")
    kept = keep.Kept(url, me["username"], token["token"], token["expires_at"], plain_http)
    file = keep.write(kept)
    if old and old.url == url:
        _end(session, old)
    _tell_login(session, me, kept, str(file))


def _tell_login(session: Session, me: Row, kept: keep.Kept, file: str) -> None:
    shown = {"url": kept.url, "username": me["username"], "role": me["role"], "scope": me["scope"]}
    session.answer(
        shown | {"expires_at": kept.expires_at, "file": file},
        lambda: (
            f"Signed in at {kept.url} as {plain(me['username'])} ({_worth(me)}) until {moment(kept.expires_at)} UTC.\n"
            f"The token is kept in {file}."
        ),
    )
    if os.environ.get("FOREBAY_TOKEN"):
        session.say("FOREBAY_TOKEN is set and is used instead of it.")


@click.command()
@json_option
@pass_session
def logout(session: Session) -> None:
    """End the kept token, on the server too, and forget it."""
    kept = _kept_or_none()
    if kept is None:
        keep.forget()
        session.answer({"url": None, "ended": False}, lambda: "You were not signed in.")
        return
    keep.forget()
    error = _end(session, kept)
    if error is not None:
        message = f"The token is forgotten here, but it stays valid until {moment(kept.expires_at)} UTC: {error}"
        raise failure(error.exit_code, message, "Revoke it in the browser, or: DELETE /api/v1/tokens.")
    session.answer({"url": kept.url, "ended": True}, lambda: f"Signed out of {kept.url}.")


def _worth(me: Row) -> str:
    """The role, and the scope where that is less."""
    whole = {"viewer": "read", "operator": "operate", "admin": "admin"}.get(me["role"])
    return f"{me['role']}" if me["scope"] == whole else f"{me['role']}, {me['scope']} only"


def _password(from_stdin: bool) -> str:
    """Never an argument: those are seen by all users of the computer."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, err=True))


def _new_token(session: Session, url: str, username: str, password: str, wanted: Row) -> Row:
    try:
        return session.at(url).new_token(username, password, wanted)
    except Failure as error:
        if [problem.code for problem in error.problems] == ["otp_required"] and sys.stdin.isatty():
            otp = click.prompt("Code of your authenticator app", err=True)
            return _new_token(session, url, username, password, {**wanted, "otp": otp})
        if error.exit_code == Exit.ACCESS:
            fixed = [
                Problem(problem.message, _FIXES.get(problem.code, "Try again; an admin can set a new password."))
                for problem in error.problems
            ]
            raise Failure(Exit.ACCESS, fixed, request_id=error.request_id) from error
        raise


def _kept_or_none() -> keep.Kept | None:
    """A file that is damaged or open to others must not keep anyone from signing in anew."""
    try:
        return keep.read()
    except Failure:
        return None


def _end(session: Session, kept: keep.Kept) -> Failure | None:
    """End a token on its server; None when it opens nothing any more."""
    try:
        session.at(kept.url, kept.token).delete("tokens/current")
    except Failure as error:
        return None if error.exit_code == Exit.ACCESS else error  # the server knows it no longer: as wished
    return None
