"""Reads measured tables of prefill and token times into profiles. What is read is not trusted."""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

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
COUNTS, TIMES = ("prompt_size", "batch_size", "token_size"), ("prompt_time", "token_time")
MOST_ROWS = 1_000_000
MOST = 1e9  # tokens, milliseconds
MOST_TP = 1024
MODEL, GPU = 120, 255  # characters of a name
Engine = tuple[str, str, int]  # model, GPU, TP


def read(path: Path) -> list[Profile]:
    """The same of a file, gzipped or not. Raises ProfileError, which names the line."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", newline="") if zipped else path.open(newline="") as file:
            return parse(str(path), file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: {error}") from error


def parse(name: str, lines: Iterable[str]) -> list[Profile]:
    """A table of Splitwise's form (model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,
    tensor_parallel; milliseconds): a profile for each model, GPU and TP. Repetitions count by their median. Raises
    ProfileError, which names the line."""
    try:
        rows = csv.DictReader(lines)
        if missing := set(COLUMNS) - set(rows.fieldnames or ()):
            raise ProfileError(f"{name}: the first line lacks {', '.join(sorted(missing))}")
        return _profiles(name, rows)
    except csv.Error as error:
        raise ProfileError(f"{name}: {error}") from error


def engine(name: str, line: int, *, model: str | None, gpu: str | None, tp: str | None) -> Engine:
    """Who a row speaks of. Raises ProfileError."""
    for word, text, most in (("model", model, MODEL), ("GPU", gpu, GPU)):
        if not text or len(text) > most or not text.isprintable():
            raise ProfileError(f"{name}, line {line}: the name of the {word} is empty, too long or no text")
    return str(model), str(gpu), whole(name, line, "the tensor parallel degree", tp, most=MOST_TP)


def whole(name: str, line: int, column: str, text: str | None, *, most: float = MOST) -> int:
    """Cut down to a whole number, 1 at least. Raises ProfileError."""
    return max(1, int(number(name, line, column, text, most=most)))


def number(name: str, line: int, column: str, text: str | None, *, most: float = MOST) -> float:
    """Above 0. Raises ProfileError."""
    try:
        value = float(text or "")
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value <= most:
        raise ProfileError(f"{name}, line {line}: {column} must be a number above 0, {most:g} at most")
    return value


def _profiles(name: str, rows: Iterable[Mapping[str, str]]) -> list[Profile]:
    prefill: dict[Engine, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    decode: dict[Engine, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for line, row in enumerate(rows, 2):
        if line > MOST_ROWS:
            raise ProfileError(f"{name}: more than {MOST_ROWS} rows")
        who = engine(name, line, model=row["model"], gpu=row["hardware"], tp=row["tensor_parallel"])
        prompt, batch, answer = (whole(name, line, column, row[column]) for column in COUNTS)
        first_ms, token_ms = (number(name, line, column, row[column]) for column in TIMES)
        prefill[who][prompt, batch].append(first_ms)
        decode[who][batch, prompt + answer // 2].append(token_ms)
    return [
        Profile(
            *who,
            Source.IMPORTED,
            tuple(PrefillPoint(size * batch, batch, size, median(took)) for (size, batch), took in found.items()),
            tuple(DecodePoint(batch, context, median(took)) for (batch, context), took in decode[who].items()),
        )
        for who, found in sorted(prefill.items())
    ]
