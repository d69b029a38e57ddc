"""Reads request logs and published traces into `Requests`, as a stream: what is kept grows with bursts, not requests.

What is read is not trusted: a bad row is told of, with its line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from controlplane.domain.forecast.activity import Floats, Ints, Requests
from controlplane.planning.bursts import MERGED_S, Bursts

WINDOW_S = 600.0  # of a trace that counts requests per window
MOST_DRAWN = 4000  # requests of a window whose moments are drawn; more are seldom a keep-alive apart
MOST_TOKENS = 10**12  # of a row: sums of them stay exact
MOST_SHOWN = 200  # characters of a row that is wrong
TELL_EVERY = 5000  # rows between two tellings of how far it is
TOKENS = ("input_tokens", "output_tokens")
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
        with path.open("rb") as raw:
            size = path.stat().st_size
            return read_stream(str(path), raw, seed=seed, on_rows=lambda: on_bytes(raw.tell(), size))
    except OSError as error:
        raise TraceError(f"{path}: {error}") from error


def read_stream(
    name: str, raw: IO[bytes], *, seed: int = 0, most_rows: int | None = None, on_rows: Callable[[], None] | None = None
) -> Trace:
    """The same of an open file, which `name` names to people."""
    try:
        with _text(raw) as file:
            rows, columns = _rows(name, file)
            reader = _reader(name, columns)
            return reader(_Source(name, _telling(name, rows, on_rows or (lambda: None), most_rows)), seed)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise TraceError(f"{name}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    rows: Iterator[tuple[int, Row]]  # (line, row)

    def numbers(self, *names: str, texts: tuple[str, ...] = ()) -> Iterator[tuple[Row, tuple[float, ...]]]:
        """Rows that have these numbers, and texts that are not empty."""
        return ((row, values) for _, row, values in self._checked(*names, texts=texts))

    def _checked(self, *names: str, texts: tuple[str, ...]) -> Iterator[tuple[int, Row, tuple[float, ...]]]:
        for line, row in self.rows:
            try:
                values = tuple(float(row[name]) for name in names)
            except (KeyError, TypeError, ValueError):
                values = (math.nan,)
            if not all(map(math.isfinite, values)):
                raise TraceError(f"{self.name}, line {line}: {', '.join(names)} must be numbers, not {_shown(row)}")
            if not all(isinstance(row.get(text), str) and row[text] for text in texts):
                raise TraceError(f"{self.name}, line {line}: {', '.join(texts)} must be given, not {_shown(row)}")
            yield line, row, values

    def requests(self, *names: str) -> Iterator[tuple[Row, tuple[float, ...], tuple[int, int] | None]]:
        """Rows of a model that have these numbers, and tokens of prompts and answers; None where a row tells neither,
        0 for the one of both that it does not."""
        for line, row, values in self._checked(*names, texts=("model",)):
            given = [row.get(name) for name in TOKENS]
            if all(one in (None, "") for one in given):
                yield row, values, None
                continue
            prompt, completion = (_whole(one) for one in given)
            if prompt is None or completion is None:
                most = f"must be whole numbers of 0 to {MOST_TOKENS}, or empty"
                raise TraceError(f"{self.name}, line {line}: {', '.join(TOKENS)} {most}, not {_shown(row)}")
            yield row, values, (prompt, completion)


def _whole(given: str | None) -> int | None:
    """0 where nothing is given; None where it is no number of tokens."""
    try:
        value = float(0 if given in (None, "") else given)
    except (TypeError, ValueError):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS and value == int(value) else None


def _text(raw: IO[bytes]) -> IO[str]:
    zipped = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return gzip.open(raw, "rt", newline="") if zipped else io.TextIOWrapper(raw, newline="")


def _rows(name: str, file: IO[str]) -> tuple[Iterator[tuple[int, Row]], frozenset[str]]:
    first = file.readline()
    if first.startswith("{"):
        return _objects(name, first, file), frozenset(_object(name, 1, first))
    columns = [one.strip() for one in next(csv.reader([first.removeprefix("\ufeff")]), [])]
    if twice := [one for one in columns if columns.count(one) > 1]:
        raise TraceError(f"{name}, line 1: {twice[0]!r} is there twice")
    return _cells(name, csv.DictReader(file, columns)), frozenset(columns)


def _objects(name: str, first: str, others: Iterable[str]) -> Iterator[tuple[int, Row]]:
    yield 1, _object(name, 1, first)
    yield from ((place, _object(name, place, line)) for place, line in enumerate(others, 2) if line.strip())


def _object(name: str, place: int, line: str) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{name}, line {place}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise TraceError(f"{name}, line {place}: each line must be a JSON object, as {{...}}")
    return found


def _cells(name: str, rows: csv.DictReader[str]) -> Iterator[tuple[int, Row]]:
    for row in rows:
        if None in row:
            raise TraceError(f"{name}, line {rows.line_num + 1}: more cells than the first line has names")
        yield rows.line_num + 1, row  # the first line was read before


def _telling(
    name: str, rows: Iterator[tuple[int, Row]], tell: Callable[[], None], most: int | None
) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(rows):
        if most is not None and number >= most:
            raise TraceError(f"{name}, line {row[0]}: more than {most} rows are not taken at once")
        if number % TELL_EVERY == 0:
            tell()
        yield row
    tell()


def _shown(row: Row) -> str:
    text = ", ".join(f"{name}={value}" for name, value in row.items())
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _log(source: _Source, seed: int) -> Trace:
    """t_s,model,duration_s[,input_tokens,output_tokens]: one row a request."""
    found = Bursts()
    for row, (at, for_s), tokens in source.requests("t_s", "duration_s"):
        found.add(row["model"], at, at + for_s, tokens=tokens)
    return Trace(found.requests())


def _export(source: _Source, seed: int) -> Trace:
    """model,from_s,until_s,requests[,input_tokens,output_tokens]: bursts, as `write` makes them."""
    found = Bursts()
    for row, (begun, ended, number), tokens in source.requests("from_s", "until_s", "requests"):
        found.add(row["model"], begun, ended, int(number), tokens)
    return Trace(found.requests())


def _functions(source: _Source, seed: int) -> Trace:
    """Azure Functions 2021: one row an invocation; a function of an app stands for a model."""
    found = Bursts()
    for row, (end, for_s) in source.numbers("end_timestamp", "duration", texts=("app", "func")):
        found.add(f"{row['app']}/{row['func']}", end - for_s, end)
    return Trace(found.requests())


def _windows(source: _Source, seed: int) -> Trace:
    """ServeGen: requests of a client per ten minutes, exact, and the law fitted to their intervals."""
    random, found = np.random.default_rng(seed), Bursts()
    for row, (at, count, shape) in source.numbers("t_s", "requests", "p1", texts=("client", "iat_dist")):
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


def _reader(name: str, columns: frozenset[str]) -> Callable[[_Source, int], Trace]:
    for wanted, reader in READERS:
        if wanted <= columns:
            return reader
    known = "; ".join(",".join(sorted(wanted)) for wanted, _ in READERS)
    raise TraceError(f"{name}: the first line names {sorted(columns)}, none of the known forms: {known}")


def write(requests: Requests, path: Path) -> None:
    """As our own export, which `read` reads again; with tokens where they are told."""
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        rows = csv.writer(file)
        told = requests.tokens
        rows.writerow(["model", "from_s", "until_s", "requests", *(TOKENS if told is not None else ())])
        for place in range(len(requests.at)):
            name, tokens = requests.models[requests.model[place]], () if told is None else told[place].tolist()
            rows.writerow([name, requests.at[place], requests.until[place], requests.number[place], *tokens])
