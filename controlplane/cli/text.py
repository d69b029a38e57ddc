"""Words, numbers and tables for a terminal. Unknown is a dash, never zero."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

UNKNOWN = "-"
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_WORDS = {"crash_looping": "crash-looping", "never_seen": "never seen", "given_up": "given up"}


def plain(text: str) -> str:
    """Without what steers a terminal: node names, messages and logs are others' words. Newlines and tabs stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns as wide as they must be. On a terminal the last column is cut to what is left of the line."""
    cells = [[" ".join(plain(cell).split()) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(headers), *cells]) for at in range(len(headers))]
    lines = []
    for row in [list(headers), *cells]:
        padded = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(_cut("  ".join(padded).rstrip()))
    return "\n".join(lines)


def word(status: str) -> str:
    return _WORDS.get(status, status)


def figure(value: float | None, unit: str = "") -> str:
    if value is None:
        return UNKNOWN
    text = f"{value:,.0f}" if abs(value) >= 10 or float(value).is_integer() else f"{value:,.1f}"
    return f"{text} {unit}".rstrip()


def counted(count: float, one: str) -> str:
    """1 slot, 2 slots."""
    return f"{figure(count)} {one}" if count == 1 else f"{figure(count)} {one}s"


def share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.0f}%"


def size(value: float | None) -> str:
    """Bytes with a unit."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def span(seconds: float | None) -> str:
    """How long: 0.8 s, 42 s, 12 min, 3 h, 5 d."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"


def moment(at: str | float | None) -> str:
    """ISO 8601 or unix seconds, as UTC."""
    if at is None:
        return UNKNOWN
    when = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _cut(line: str) -> str:
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else line[: max(width - 1, 1)] + "…"
