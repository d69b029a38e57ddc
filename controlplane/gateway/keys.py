"""What a gateway key is: a random secret of which only the hash is kept. Pure, but for the randomness."""

from __future__ import annotations

import hashlib
import hmac
import secrets

PREFIX = "fb-"
SHOWN = 10  # characters people see of a key


def new() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def internal(secret_key: str) -> str:
    """The key that processes of this installation use among themselves; it follows from the secret key."""
    return PREFIX + "internal-" + hmac.digest(secret_key.encode(), b"forebay.gateway.internal", "sha256").hex()


def hash_of(plain: str) -> str:
    """Keys hold 256 random bits, so one round of SHA-256 is enough."""
    return hashlib.sha256(plain.encode()).hexdigest()
