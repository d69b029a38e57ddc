"""Leases of TCP ports from the configured ranges. What is leased is kept with the replicas, not here."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection


class NoFreePort(Exception):
    """Every port of the range is leased or in use."""


def parse_range(text: str) -> range:
    """ "18100-18199" as a range of ports."""
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 65535):
        raise ValueError(f"{text!r} is not a port range; write FIRST-LAST, for example 18100-18199")
    return range(int(first), int(last) + 1)


def lease(ports: range, taken: Collection[int], host: str, prefer: int = 0) -> int:
    """A port that nobody leases and that can be bound now; `prefer` if it still is one.

    A restarted engine is best found at its old address: its decoders know that one.
    """
    candidates = [prefer, *ports] if prefer in ports else list(ports)
    for port in candidates:
        if port not in taken and is_free(port, host):
            return port
    raise NoFreePort(f"no free port in {ports.start}-{ports.stop - 1}: {len(taken)} leased, the rest in use")


def is_free(port: int, host: str) -> bool:
    """Whether a server could listen there now. A port in TIME_WAIT is free, as it is for the engines' servers."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True
