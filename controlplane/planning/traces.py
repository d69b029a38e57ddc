"""Reads request logs and published traces into `Requests`, as a stream: what is kept grows with bursts, not requests.

What is read is not trusted: a bad row is told of, with its line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from controlplane.domain.forecast.activity import Floats, Ints, Requests
from controlplane.planning.bursts import MERGED_S, Bursts

WINDOW_S = 600.0  # of a trace that counts requests per window
MOST_DRAWN = 4000  # requests of a window whose moments are drawn; more are seldom a keep-alive apart
TELL_EVERY = 5000  # rows between two tellings of how far it is
Row = Mapping[str, str]
Told = Callable[[int, int], None]


class TraceError(Exception):
    """The file is no trace; the message says where and why. Nothing was read."""


@dataclass(frozen=True, slots=True)
class Trace:
    requests: Requests
    note: str = ""  # what a reader should know of how it was made


def read(path: Path, *, seed: int = 0, on_bytes: Told = lambda done, of: None) -> Trace:
    """By the names in its first line; gzipped or not, CSV or JSON lines. `seed`: of what a trace does not tell, such as
    the moments within a window of which only the number of requests is known. Requests of a model within MERGED_S
    seconds are kept as one burst. `on_bytes`: how much of the file is read, and its size."""
    try:
        with path.open("rb") as raw, _text(raw) as file:
            rows, columns = _rows(file)
            reader = _reader(path, columns)
            size = path.stat().st_size
            return reader(_Source(path, _telling(rows, lambda: on_bytes(raw.tell(), size))), seed)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise TraceError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    rows: Iterator[tuple[int, Row]]  # (line, row)

    def numbers(self, *names: str) -> Iterator[tuple[Row, tuple[float, ...]]]:
        for line, row in self.rows:
            try:
                values = tuple(float(row[name]) for name in names)
            except (KeyError, TypeError, ValueError):
                values = (math.nan,)
            if not all(map(math.isfinite, values)):
                raise TraceError(f"{self.path}, line {line}: {', '.join(names)} must be numbers, not {dict(row)}")
            yield row, values


def _text(raw: IO[bytes]) -> IO[str]:
    zipped = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return gzip.open(raw, "rt", newline="") if zipped else io.TextIOWrapper(raw, newline="")


def _rows(file: IO[str]) -> tuple[Iterator[tuple[int, Row]], frozenset[str]]:
    first = file.readline()
    if first.startswith("{"):
        found = json.loads(first)
        lines = (json.loads(line) for line in file if line.strip())
        return enumerate(_chain(found, lines), 1), frozenset(found)
    columns = next(csv.reader([first]), [])
    return ((place, row) for place, row in enumerate(csv.DictReader(file, columns), 2)), frozenset(columns)


def _chain(first: Row, others: Iterable[Row]) -> Iterator[Row]:
    yield first
    yield from others


def _telling(rows: Iterator[tuple[int, Row]], tell: Callable[[], None]) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(rows):
        if number % TELL_EVERY == 0:
            tell()
        yield row
    tell()


def _log(source: _Source, seed: int) -> Trace:
    """t_s,model,duration_s: one row a request."""
    found = Bursts()
    for row, (at, for_s) in source.numbers("t_s", "duration_s"):
        found.add(row["model"], at, at + for_s)
    return Trace(found.requests())


def _export(source: _Source, seed: int) -> Trace:
    """model,from_s,until_s,requests: bursts, as `write` makes them."""
    found = Bursts()
    for row, (begun, ended, number) in source.numbers("from_s", "until_s", "requests"):
        found.add(row["model"], begun, ended, int(number))
    return Trace(found.requests())


def _functions(source: _Source, seed: int) -> Trace:
    """Azure Functions 2021: one row an invocation; a function of an app stands for a model."""
    found = Bursts()
    for row, (end, for_s) in source.numbers("end_timestamp", "duration"):
        found.add(f"{row['app']}/{row['func']}", end - for_s, end)
    return Trace(found.requests())


def _windows(source: _Source, seed: int) -> Trace:
    """ServeGen: requests of a client per ten minutes, exact, and the law fitted to their intervals."""
    random, found = np.random.default_rng(seed), Bursts()
    for row, (at, count, shape) in source.numbers("t_s", "requests", "p1"):
        begun, ended, number = _within(random, row["iat_dist"], int(count), shape)
        found.extend(row["client"], at + begun, at + ended, number)
    note = (
        f"Moments within a window are drawn from the published interval law with seed {seed}, of at most {MOST_DRAWN} "
        "requests a window; windows of fewer than 10 requests are absent in the source; durations are taken as 0."
    )
    return Trace(found.requests(), note)


def _within(random: np.random.Generator, law: str, count: int, shape: float) -> tuple[Floats, Floats, Ints]:
    """So many moments in a window, as bursts without a gap of MERGED_S: (begin, end, requests) of each. Intervals of
    the law, stretched to fill the window: that makes its scale immaterial."""
    drawn, shape = max(1, min(count, MOST_DRAWN)), max(shape, 1e-3)
    gaps = random.weibull(shape, drawn + 1) if law == "Weibull" else random.gamma(shape, size=drawn + 1)
    total = float(gaps.sum())
    if not math.isfinite(total) or total <= 0:
        gaps, total = np.ones(drawn + 1), drawn + 1.0
    moments = np.cumsum(gaps)[:-1] / total * WINDOW_S
    first = np.flatnonzero(np.append(True, np.diff(moments) >= MERGED_S))
    last = np.append(first[1:], drawn) - 1
    return moments[first], moments[last], np.rint((last - first + 1) * (count / drawn)).astype(np.int64)


READERS = (
    (frozenset({"t_s", "model", "duration_s"}), _log),
    (frozenset({"model", "from_s", "until_s", "requests"}), _export),
    (frozenset({"client", "t_s", "requests", "iat_dist", "p1"}), _windows),
    (frozenset({"app", "func", "end_timestamp", "duration"}), _functions),
)


def _reader(path: Path, columns: frozenset[str]) -> Callable[[_Source, int], Trace]:
    for wanted, reader in READERS:
        if wanted <= columns:
            return reader
    known = "; ".join(",".join(sorted(wanted)) for wanted, _ in READERS)
    raise TraceError(f"{path}: the first line names {sorted(columns)}, none of the known forms: {known}")


def write(requests: Requests, path: Path) -> None:
    """As our own export, which `read` reads again."""
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "from_s", "until_s", "requests"])
        for place in range(len(requests.at)):
            name = requests.models[requests.model[place]]
            rows.writerow([name, requests.at[place], requests.until[place], requests.number[place]])
