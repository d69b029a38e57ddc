"""A trace that somebody sends: bounded, read strictly, moved in time where that is asked for, checked, kept."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, replace

import numpy as np

from controlplane.audit.services import Actor
from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid
from controlplane.planning import keeping
from controlplane.planning.keeping import Imported
from controlplane.planning.traces import Trace, TraceError, read_stream

MOST_BYTES = 3 * 2**20  # as sent; a page's form, its boundaries included, is to stay under the limit of any body
MOST_UNPACKED = 64 * 2**20
MOST_ROWS = 200_000
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Told:
    models: int
    requests: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Sent:
    """What is in it, read and moved; there is at least one request. `note`: on how it was read."""

    requests: Requests
    note: str

    @property
    def told(self) -> Told:
        found = self.requests
        end = float(found.until.max())
        return Told(len(set(found.model.tolist())), int(found.number.sum()), float(found.at.min()), end)


def read_sent(name: str, data: bytes, *, shift_to_now: bool, now: float, most_rows: int = MOST_ROWS) -> Sent:
    """Raises Invalid, whose message names the line."""
    found = parse(name, data, most_rows)
    requests = moved(found.requests, now) if shift_to_now else found.requests
    keeping.check(requests, now)
    return Sent(requests, found.note)


def parse(name: str, data: bytes, most_rows: int = MOST_ROWS) -> Trace:
    """At whatever times it tells. Raises Invalid, whose message names the line."""
    if not data.strip():
        raise _refused("empty", f"{name} is empty.", "Send a file with a first line of names and a row a request.")
    if len(data) > MOST_BYTES:
        text = f"{name} has {len(data)} bytes; at most {MOST_BYTES} are taken at once."
        raise _refused("too-large", text, "Pack it with gzip, send it in parts, or use manage.py import_activity.")
    try:
        return read_stream(name, io.BytesIO(_unpacked(name, data)), most_rows=most_rows)
    except TraceError as error:
        raise _refused("trace", f"{error}.", "Correct this line; the page of imports tells what is taken.") from error


def import_sent(
    name: str, data: bytes, *, shift_to_now: bool, actor: Actor, now: float, reason: str = ""
) -> tuple[Imported, str]:
    """What was kept, and a note on how the trace was read. Raises Invalid or DomainError, and keeps nothing."""
    sent = read_sent(name, data, shift_to_now=shift_to_now, now=now)
    return keeping.save_import(sent.requests, actor=actor, now=now, reason=reason), sent.note


def moved(requests: Requests, now: float) -> Requests:
    """By whole days, so that the last request lies within the day before `now` and hours of the day stay."""
    if not len(requests.at):
        return requests
    by = np.floor((now - requests.until.max()) / DAY_S) * DAY_S
    return replace(requests, at=requests.at + by, until=requests.until + by)


def _unpacked(name: str, data: bytes) -> bytes:
    """Never more than is allowed, whatever it says of itself."""
    if not data.startswith(GZIP):
        return data
    text = bytearray()
    while data:
        part = zlib.decompressobj(wbits=31)  # a file may have several, one after the other
        try:
            text += part.decompress(data, MOST_UNPACKED + 1 - len(text))
        except zlib.error as error:
            raise _refused("trace", f"{name} is no whole gzip file: {error}.", "Pack it anew.") from error
        if len(text) > MOST_UNPACKED:
            most = f"{name} is more than {MOST_UNPACKED // 2**20} MiB once unpacked."
            raise _refused("too-large", most, "Send it in parts, or use manage.py import_activity.")
        if not part.eof:
            raise _refused("trace", f"{name} is no whole gzip file: it ends too early.", "Pack it anew.")
        data = part.unused_data
    return bytes(text)


def _refused(code: str, message: str, fix: str) -> Invalid:
    return Invalid([Problem(code, f"{message} Nothing was imported.", fix)])
