"""How a message leaves: HTTP to an address that was checked, or SMTP. Nothing here raises; what came of it is told."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

import httpx
from django.conf import settings

TIMEOUT_S = 10.0
NEVER_TAKEN = {400, 405, 413, 414, 415, 422}  # the same message would be refused again
METADATA = ipaddress.ip_address("fd00:ec2::254")  # where clouds hand out credentials, beside 169.254.0.0/16
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Outcome:
    """`final`: to try again is of no use. The message is for people, and holds no secret."""

    ok: bool
    message: str
    final: bool = False


class BadAddress(Exception):
    """Nothing is sent there."""


def check_url(url: str) -> None:
    """Whether it is an address to post to at all. Names are looked up when something is sent."""
    _host_of(url)
    with contextlib.suppress(ValueError):  # a name
        _refuse(ipaddress.ip_address(urlsplit(url).hostname or ""))


def post(url: str, body: bytes, headers: dict[str, str]) -> Outcome:
    """To the very address that was checked: a name may mean another one a moment later. Redirects are not followed."""
    try:
        address = _resolved(url)
        parts = urlsplit(url)
        host = f"[{address}]" if address.version == 6 else str(address)
        there = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()
        said = {"Content-Type": "application/json", "User-Agent": "forebay", "Host": parts.netloc.split("@")[-1]}
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            extensions = {"sni_hostname": parts.hostname or ""}
            with client.stream("POST", there, content=body, headers=said | headers, extensions=extensions) as response:
                return _outcome(response.status_code)
    except BadAddress as error:
        return Outcome(False, str(error))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Outcome(False, _plain(error))


def signature(secret: str, body: bytes, at: int | None = None) -> str:
    """`t=` seconds, `v1=` the HMAC-SHA256 of "t.body" by the shared secret, in hex."""
    at = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def mail(to: list[str], subject: str, text: str, key: str) -> Outcome:
    if not settings.SMTP_URL:
        return Outcome(False, "No mail server is set: give the control plane FOREBAY_SMTP_URL.")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.SMTP_FROM, ", ".join(to), subject
    message["Date"], message["Message-ID"] = formatdate(), f"<{key}@forebay>"
    message.set_content(text)
    try:
        _send(message)
    except smtplib.SMTPRecipientsRefused as error:
        return Outcome(False, f"The mail server refuses {', '.join(error.recipients)}.")
    except smtplib.SMTPResponseException as error:
        return Outcome(False, f"The mail server answered {error.smtp_code}.")
    except (smtplib.SMTPException, OSError, ValueError) as error:
        return Outcome(False, _plain(error))
    return Outcome(True, "The mail server took it.")


def _send(message: EmailMessage) -> None:
    parts = urlsplit(settings.SMTP_URL)
    if parts.scheme not in ("smtp", "smtps", "smtp+plain") or not parts.hostname:
        raise ValueError("FOREBAY_SMTP_URL is no smtp://, smtps:// or smtp+plain:// address")
    secure = ssl.create_default_context()
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(parts.hostname, parts.port or 465, timeout=TIMEOUT_S, context=secure)
    else:
        server = smtplib.SMTP(parts.hostname, parts.port or 587, timeout=TIMEOUT_S)
    with server:
        if parts.scheme == "smtp":
            server.starttls(context=secure)
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(message)


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(True, f"It answered {status}.")
    if 300 <= status < 400:
        return Outcome(False, f"It answered {status}, to go elsewhere: redirects are not followed.")
    return Outcome(False, f"It answered {status}.", final=status in NEVER_TAKEN)


def _host_of(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadAddress("This is no address.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadAddress("An address begins with https:// or http:// and names a host.")
    if parts.username or parts.password:
        raise BadAddress("An address holds no user and password: use a signing secret.")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _resolved(url: str) -> Address:
    host, port = _host_of(url)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise BadAddress(f"There is no host {host}.") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    for address in addresses:
        _refuse(address)
    return addresses[0]


def _refuse(address: Address) -> None:
    """On premises a target is often on a private address, and lawful; where machines get credentials is not."""
    plain = (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
    if plain.is_link_local or plain.is_multicast or plain.is_unspecified or plain == METADATA:
        raise BadAddress(f"Nothing is sent to {address}: link-local, multicast and metadata addresses are refused.")


def _plain(error: Exception) -> str:
    """What went wrong, without the address, which may hold a secret."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return f"No answer within {TIMEOUT_S:.0f} s."
    if isinstance(error, httpx.ConnectError | ConnectionError):
        return "The connection was refused or broke."
    return f"It could not be sent ({type(error).__name__})."
