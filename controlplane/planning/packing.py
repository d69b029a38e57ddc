"""Bursts of one model and day as a few bytes: a year of a thousand models is some hundred megabytes, not tens of
gigabytes of rows."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from controlplane.domain.forecast.activity import Floats, Ints

TENTHS = 10.0  # times are kept to a tenth of a second
COLUMNS = 5
MOST_BYTES = 64 * 2**20  # of one day unpacked; what says more is damaged


class Damaged(ValueError):
    """The bytes are not what `pack` made."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Bursts, all of shape (bursts,): begin and end in seconds after midnight (an end may lie on a later day),
    requests, prompt and completion tokens."""

    at: Floats
    until: Floats
    number: Ints
    prompt: Ints
    completion: Ints


def pack(bursts: Packed) -> bytes:
    order = np.argsort(bursts.at, kind="stable")
    at = np.rint(bursts.at[order] * TENTHS).astype(np.int64)
    lasted = np.rint(bursts.until[order] * TENTHS).astype(np.int64) - at
    gaps = np.diff(at, prepend=0)
    columns = np.stack([gaps, lasted, bursts.number[order], bursts.prompt[order], bursts.completion[order]])
    # Bytes of the same weight lie together: most are zero, and such stretches take next to nothing.
    return zlib.compress(np.ascontiguousarray(columns.astype("<i8")).view(np.uint8).reshape(-1, 8).T.tobytes(), 6)


def unpack(data: bytes) -> Packed:
    """Raises Damaged."""
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise Damaged(str(error)) from error
    if not reader.eof or len(plain) % (8 * COLUMNS):
        raise Damaged("cut short, or longer than a day can be")
    flat = np.frombuffer(plain, np.uint8).reshape(8, -1).T
    columns = np.ascontiguousarray(flat).view("<i8").reshape(COLUMNS, -1).astype(np.int64)
    at = np.cumsum(columns[0])
    return Packed(at / TENTHS, (at + columns[1]) / TENTHS, columns[2], columns[3], columns[4])
