from __future__ import annotations

import json
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value
from django.contrib.auth.models import User
from knox.models import AuthToken

from controlplane.cli import keep
from tests.cli.conftest import URL, Terminal, Wire
from tests.factories import make_node, make_user

PASSWORD = "correct horse battery"


@pytest.fixture
def ada(terminal: Terminal) -> Terminal:
    make_user("operator", username="ada", password=PASSWORD)
    terminal.secrets.append(PASSWORD)
    return terminal


def kept(terminal: Terminal) -> dict[str, str]:
    return json.loads((terminal.folder / "forebay" / "config.json").read_text())


def log_in(terminal: Terminal, *more: str) -> str:
    shown = terminal.ok("login", URL, *more, said=f"ada\n{PASSWORD}\n")
    terminal.secrets.append(kept(terminal)["token"])
    assert kept(terminal)["token"] not in shown
    return shown


def test_login_keeps_a_token_that_only_its_owner_can_read(ada: Terminal) -> None:
    shown = log_in(ada)
    assert "Signed in" in shown and "ada (operator)" in shown
    file = ada.folder / "forebay" / "config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]
    assert (kept(ada)["url"], kept(ada)["username"]) == (URL, "ada")


def test_the_kept_token_signs_later_commands(ada: Terminal) -> None:
    make_node("alpha")
    log_in(ada)
    assert "alpha" in ada.ok("nodes")


def test_login_for_a_day_expires_after_a_day(ada: Terminal) -> None:
    log_in(ada, "--for", "1d")
    left = AuthToken.objects.get().expiry - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(days=1)


def test_a_password_can_come_by_standard_input(ada: Terminal) -> None:
    shown = json.loads(ada.ok("login", URL, "-u", "ada", "--password-stdin", "--json", said=f"{PASSWORD}\n"))
    assert set(shown) == {"url", "username", "role", "scope", "expires_at", "file"}
    assert (shown["url"], shown["username"], shown["role"]) == (URL, "ada", "operator")


def test_a_wrong_password_is_3_and_keeps_nothing(ada: Terminal) -> None:
    shown = ada.fails(3, "login", URL, "-u", "ada", "--password-stdin", said="wrong\n")
    assert "Wrong username or password." in shown and "Fix:" in shown
    assert not (ada.folder / "forebay").exists()


def test_a_second_login_ends_the_first_token(ada: Terminal) -> None:
    log_in(ada)
    first = kept(ada)["token"]
    log_in(ada)
    (left,) = AuthToken.objects.all()
    assert kept(ada)["token"].startswith(left.token_key)
    assert not first.startswith(left.token_key)


def test_logout_ends_the_token_on_the_server_and_here(ada: Terminal) -> None:
    log_in(ada)
    assert "Signed out" in ada.ok("logout")
    assert not AuthToken.objects.exists()
    assert not (ada.folder / "forebay" / "config.json").exists()
    assert "not signed in" in ada.fails(3, "nodes")
    assert ada.json("logout") == {"url": None, "ended": False}


def test_logout_with_the_server_away_forgets_and_says_that_the_token_lives_on(ada: Terminal) -> None:
    log_in(ada)

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    ada.transport = httpx.MockTransport(away)
    assert "stays valid until" in ada.fails(5, "logout")
    assert keep_file(ada).exists() is False
    assert AuthToken.objects.exists()


def keep_file(terminal: Terminal) -> Path:
    return terminal.folder / "forebay" / "config.json"


def test_a_kept_token_is_sent_to_no_other_server(ada: Terminal, wire: Wire) -> None:
    log_in(ada)
    wire.seen.clear()
    ada.environment["FOREBAY_URL"] = "https://elsewhere.example"
    assert "not signed in at https://elsewhere.example" in ada.fails(3, "nodes")
    assert wire.seen == []


def test_a_file_that_others_can_read_is_not_used(ada: Terminal) -> None:
    log_in(ada)
    keep_file(ada).chmod(0o640)
    assert "can be read or changed by others" in ada.fails(3, "nodes")
    log_in(ada)
    assert stat.S_IMODE(keep_file(ada).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 1}', "\x00"])
def test_a_damaged_file_is_3_and_says_what_to_do(ada: Terminal, text: str) -> None:
    keep_file(ada).parent.mkdir()
    keep_file(ada).touch(mode=0o600)
    keep_file(ada).write_text(text)
    assert "damaged" in ada.fails(3, "nodes")


def test_a_token_that_expired_is_3(ada: Terminal) -> None:
    log_in(ada)
    AuthToken.objects.update(expiry=datetime.now(UTC) - timedelta(seconds=1))
    assert "forebay login" in ada.fails(3, "nodes")


@pytest.mark.parametrize("words", [("login", "http://10.0.0.9:8000"), ("nodes",)])
def test_nothing_is_sent_unencrypted_to_another_host(terminal: Terminal, wire: Wire, words: tuple[str, ...]) -> None:
    terminal.environment = {"FOREBAY_URL": "http://10.0.0.9:8000", "FOREBAY_TOKEN": "t" * 64}
    terminal.secrets = ["t" * 64]
    assert "not encrypted" in terminal.fails(3, *words, said="ada\nsecret\n")
    assert wire.seen == []


def test_unencrypted_where_the_person_said_so(terminal: Terminal, wire: Wire) -> None:
    terminal.environment = {
        "FOREBAY_URL": "http://10.0.0.9:8000", "FOREBAY_TOKEN": "t" * 64, "FOREBAY_PLAIN_HTTP": "1",
    }  # fmt: skip
    terminal.run("nodes")
    assert [request.url.host for request in wire.seen] == ["10.0.0.9"]


@pytest.mark.parametrize("url", ["ftp://x", "forebay", "http://", "https://ada:pw@forebay.example", "http://x?y=1"])
def test_what_is_no_address_is_2(terminal: Terminal, url: str) -> None:
    assert "Error:" in terminal.fails(2, "login", url)


def test_a_token_is_in_no_repr() -> None:
    assert "s3cret" not in repr(keep.Kept(URL, "ada", "s3cret", "2027-01-01T00:00:00Z"))


def test_an_account_with_a_second_factor_says_the_code(ada: Terminal) -> None:
    secret = generate_totp_secret()
    TOTP.activate(User.objects.get(username="ada"), secret)
    told = ada.fails(3, "login", URL, "-u", "ada", "--password-stdin", said=f"{PASSWORD}\n")
    assert "second factor" in told
    assert "--otp" in told
    code = format_hotp_value(hotp_value(secret, int(time.time()) // 30))
    assert "Signed in" in ada.ok("login", URL, "-u", "ada", "--password-stdin", "--otp", code, said=f"{PASSWORD}\n")


def test_a_login_that_only_looks_says_so(ada: Terminal) -> None:
    assert "ada (operator, read only)" in log_in(ada, "--scope", "read")
    make_node("alpha")
    assert "scope operate" in ada.fails(3, "cordon", "alpha")
