"""Shutting an engine's door before it goes, by the guard that every engine has (`guard`): who is inside is told, and
nobody else comes in. No time has to pass then until gateways have heard that it leaves."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import msgspec

from workers.engines.sleeping import HEADER

PATH = "/forebay/door"
CALL_S = 1.0


@dataclass(frozen=True, slots=True)
class Shut:
    """`inside`: requests that are not answered yet. Nobody else comes in for `shut_s` from when it was asked."""

    inside: int
    shut_s: float


def shut(client: httpx.Client, url: str, secret: str) -> Shut | None:
    """None where the engine has no door, or does not answer in time: then it may or may not be shut."""
    try:
        reply = client.post(f"{url}{PATH}", headers={HEADER: secret}, timeout=CALL_S)
        return msgspec.json.decode(reply.content, type=Shut) if reply.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, msgspec.MsgspecError):
        return None


def open_again(client: httpx.Client, url: str, secret: str) -> bool:
    """Whether it said so; else it opens by itself, within `shut_s`."""
    try:
        reply = client.delete(f"{url}{PATH}", headers={HEADER: secret}, timeout=CALL_S)
    except httpx.HTTPError:
        return False
    return reply.status_code == httpx.codes.OK
