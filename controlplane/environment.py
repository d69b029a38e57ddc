"""How the settings read environment variables."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from controlplane.domain import sign_on

YES, NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def flag(name: str, default: bool) -> bool:
    """Raises ValueError for a word that is neither: it must not quietly mean no."""
    value = os.environ.get(name, "1" if default else "0").strip().lower()
    if value not in YES | NO:
        raise ValueError(f"{name} is {os.environ[name]!r}; use 1 or 0.")
    return value in YES


def whole(name: str, default: int, least: int = 0) -> int:
    """A whole number, at least `least`. Raises ValueError, which names the variable and what it may be."""
    value = os.environ.get(name, str(default))
    try:
        found = int(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}; use a whole number.") from None
    if found < least:
        raise ValueError(f"{name} is {value!r}; use {least} or more.")
    return found


def number(name: str, default: float, least: float = 0.0) -> float:
    """As `whole`, with decimals."""
    value = os.environ.get(name, str(default))
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{name} is {value!r}; use a number.")
    if found < least:
        raise ValueError(f"{name} is {value!r}; use {least:g} or more.")
    return found


def words(name: str, default: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def choice(name: str, default: str, allowed: Sequence[str]) -> str:
    """One of a few words. Raises ValueError for any other: nothing starts with half of what was meant."""
    if (value := os.environ.get(name, default)) not in allowed:
        raise ValueError(f"{name} is {value!r}; use {', '.join(word or 'nothing' for word in allowed)}.")
    return value


def secret_key(home: Path) -> str:
    """FOREBAY_SECRET_KEY, else a key made once and kept in the home folder, readable by its owner only."""
    if key := os.environ.get("FOREBAY_SECRET_KEY"):
        return key
    path = home / "secret_key"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(fd, "w") as file:
        file.write(key := secrets.token_urlsafe(48))
    return key


def database(url: str) -> dict[str, object]:
    """sqlite:///path or postgresql://user:password@host:port/name as Django's DATABASES entry. As in libpq, a socket's
    folder goes by the query: postgresql:///name?host=/run/postgresql"""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": parts.path or ":memory:",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    if parts.scheme in {"postgres", "postgresql"}:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or dict(parse_qsl(parts.query)).get("host", ""),
            "PORT": str(parts.port or ""),
            "CONN_MAX_AGE": 0,  # kept where threads are few and stay: see lanes.keep_connections
        }
    raise ValueError(f"FOREBAY_DATABASE_URL: unknown scheme {parts.scheme!r}; use sqlite:/// or postgresql://")


def oidc() -> dict[str, object] | None:
    """Single sign-on by OpenID Connect; None where no issuer is named."""
    issuer = os.environ.get("FOREBAY_OIDC_ISSUER", "").rstrip("/")
    if not issuer:
        return None
    if urlsplit(issuer).scheme != "https" and urlsplit(issuer).hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ValueError("FOREBAY_OIDC_ISSUER: use https://, or its answers could be forged on the way")
    if not os.environ.get("FOREBAY_OIDC_CLIENT_ID"):
        raise ValueError("FOREBAY_OIDC_ISSUER is set, so FOREBAY_OIDC_CLIENT_ID is needed")
    if (default := os.environ.get("FOREBAY_OIDC_DEFAULT_ROLE", "")) not in {"", "viewer"}:
        raise ValueError("FOREBAY_OIDC_DEFAULT_ROLE: viewer, or leave it out to refuse who is in no named group")
    try:
        roles = sign_on.mapping(os.environ.get("FOREBAY_OIDC_ROLES", ""))
    except ValueError as error:
        raise ValueError(f"FOREBAY_OIDC_ROLES: {error}") from error
    return {
        "issuer": issuer,
        "client_id": os.environ["FOREBAY_OIDC_CLIENT_ID"],
        "client_secret": os.environ.get("FOREBAY_OIDC_CLIENT_SECRET", ""),
        "name": os.environ.get("FOREBAY_OIDC_NAME", "single sign-on"),
        "scopes": words("FOREBAY_OIDC_SCOPES", "openid,profile,email"),
        "groups_claim": os.environ.get("FOREBAY_OIDC_GROUPS_CLAIM", "groups"),
        "roles": roles,
        "default_role": default,
    }
