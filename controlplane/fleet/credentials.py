"""Secrets that the fleet hands out: made here, shown once, kept as hashes."""

from __future__ import annotations

import hashlib
import secrets


def new_join_token() -> str:
    return f"fbj-{secrets.token_urlsafe(32)}"


def new_node_token() -> str:
    return f"fbn-{secrets.token_urlsafe(32)}"


def new_engine_key() -> str:
    return f"fbe-{secrets.token_urlsafe(32)}"


def new_broker_password() -> str:
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """sha256 as hex. Fit for these secrets alone: they are 256 random bits, which no guessing will find."""
    return hashlib.sha256(secret.encode()).hexdigest()
