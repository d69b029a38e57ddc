"""Reads measured tables of prefill and token times into profiles. What is read is not trusted."""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import IO

from controlplane.domain.profiles import DecodePoint, PrefillPoint, Profile, ProfileError, Source

COLUMNS = (
    "model",
    "hardware",
    "prompt_size",
    "batch_size",
    "token_size",
    "prompt_time",
    "token_time",
    "tensor_parallel",
)
MOST_ROWS = 1_000_000
Engine = tuple[str, str, int]  # model, GPU, TP


def read(path: Path) -> list[Profile]:
    """A table of Splitwise's form (model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,
    tensor_parallel; milliseconds), gzipped or not: a profile for each model, GPU and TP. Repetitions count by their
    median. Raises ProfileError, which names the line."""
    try:
        with _opened(path) as file:
            rows = csv.DictReader(file)
            if missing := set(COLUMNS) - set(rows.fieldnames or ()):
                raise ProfileError(f"{path}: the first line lacks {', '.join(sorted(missing))}")
            return _profiles(path, rows)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ProfileError(f"{path}: {error}") from error


def _profiles(path: Path, rows: Iterable[Mapping[str, str]]) -> list[Profile]:
    prefill: dict[Engine, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    decode: dict[Engine, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for line, row in enumerate(rows, 2):
        if line > MOST_ROWS:
            raise ProfileError(f"{path}: more than {MOST_ROWS} rows")
        prompt, batch, answer, tp, first_ms, token_ms = _numbers(path, line, row)
        engine = row["model"], row["hardware"], int(tp)
        prefill[engine][int(prompt), int(batch)].append(first_ms)
        decode[engine][int(batch), int(prompt + answer / 2)].append(token_ms)
    return [
        Profile(
            *engine,
            Source.IMPORTED,
            tuple(PrefillPoint(size * batch, batch, size, median(took)) for (size, batch), took in found.items()),
            tuple(DecodePoint(batch, context, median(took)) for (batch, context), took in decode[engine].items()),
        )
        for engine, found in sorted(prefill.items())
    ]


def _numbers(path: Path, line: int, row: Mapping[str, str]) -> tuple[float, ...]:
    names = ("prompt_size", "batch_size", "token_size", "tensor_parallel", "prompt_time", "token_time")
    try:
        values = tuple(float(row[name]) for name in names)
    except (TypeError, ValueError):
        values = (math.nan,)
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ProfileError(f"{path}, line {line}: {', '.join(names)} must be numbers above 0")
    return values


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", newline="") if zipped else path.open(newline="")
