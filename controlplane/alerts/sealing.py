"""Addresses and secrets of targets at rest: sealed with the control plane's own key, opened only to send."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict, dataclass

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings


class CannotOpen(Exception):
    """It was sealed with another SECRET_KEY: the address has to be given again."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where to, and what signs or opens it: a webhook's signing secret, or PagerDuty's routing key."""

    address: str
    secret: str = ""


def seal(route: Route) -> str:
    return _fernet().encrypt(msgspec.json.encode(asdict(route))).decode()


def unseal(sealed: str) -> Route:
    try:
        return msgspec.json.decode(_fernet().decrypt(sealed.encode()), type=Route)
    except (InvalidToken, msgspec.MsgspecError):
        raise CannotOpen from None


def _fernet() -> Fernet:
    key = hashlib.sha256(b"forebay alert targets\0" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
