"""Reads what NVIDIA AIConfigurator writes (pareto.csv and the like), in either of its layouts: aggregated engines, and
pairs of a prefill and a decode engine, a row a candidate. What is read is not trusted.

Times are estimates of theirs, in milliseconds, of requests all alike. Engines of several pipeline stages or data
parallel ranks are left out: a profile is of one rank.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.domain.profiles import DecodePoint, PrefillPoint, Profile, ProfileError, Source
from controlplane.planning.profile_tables import MOST_ROWS, Engine, engine, number, whole

AGGREGATED = ("model", "isl", "osl", "bs", "ttft", "tpot", "tp", "pp", "dp", "system")
PAIRS = (
    "model", "isl", "osl", "(p)bs", "(d)bs", "ttft", "tpot", "(p)tp", "(p)pp", "(p)dp", "(p)system", "(d)tp", "(d)pp",
    "(d)dp", "(d)system",
)  # fmt: skip
VERSION = 64  # characters
Row = Mapping[str, str]
Key = tuple[Engine, str]  # with the engine's version


@dataclass(slots=True)
class _Points:
    prefill: dict[PrefillPoint, None] = field(default_factory=dict)  # in order, each once
    decode: dict[DecodePoint, None] = field(default_factory=dict)


class _Table:
    def __init__(self, name: str) -> None:
        self.name = name
        self.points: dict[Key, _Points] = defaultdict(_Points)
        self.notes: dict[str, int] = defaultdict(int)

    def aggregated(self, line: int, row: Row) -> None:
        """TTFT is that of a prompt alone where the batch is one; elsewhere waiting is in it. Newer versions tell steps
        by themselves."""
        points, (isl, osl) = self._of(line, row, ""), self._lengths(line, row)
        batch = self._whole(line, row, "bs")
        if batch == 1:
            points.prefill[PrefillPoint(isl, 1, isl, self._number(line, row, "ttft"))] = None
        if row.get("prefill_step_ms") and row.get("ctx_tokens"):
            tokens, took = self._whole(line, row, "ctx_tokens"), self._number(line, row, "prefill_step_ms")
            points.prefill[PrefillPoint(tokens, -(-tokens // isl), isl, took)] = None
        told = "genonly_step_ms" if row.get("genonly_step_ms") else "tpot"
        if told == "tpot" and batch > 1:
            self.notes["prompts of others are in TPOT: decode is taken to be slower than it is alone"] += 1
        points.decode[DecodePoint(batch, isl + osl // 2, self._number(line, row, told))] = None

    def pair(self, line: int, row: Row) -> None:
        isl, osl = self._lengths(line, row)
        batch = self._whole(line, row, "(p)bs")
        told = "(p)prefill_step_ms" if row.get("(p)prefill_step_ms") else "ttft"
        took = self._number(line, row, told)
        self._of(line, row, "(p)").prefill[PrefillPoint(isl * batch, batch, isl, took)] = None
        itl = self._number(line, row, "tpot")
        self._of(line, row, "(d)").decode[DecodePoint(self._whole(line, row, "(d)bs"), isl + osl // 2, itl)] = None

    def profiles(self) -> list[Profile]:
        return [
            Profile(*who, Source.IMPORTED, tuple(found.prefill), tuple(found.decode), engine_version=version)
            for (who, version), found in sorted(self.points.items())
        ]

    def one_rank(self, line: int, row: Row, side: str) -> bool:
        if self._whole(line, row, f"{side}pp") == 1 and self._whole(line, row, f"{side}dp") == 1:
            return True
        self.notes["engines of several pipeline stages or data parallel ranks were left out"] += 1
        return False

    def _of(self, line: int, row: Row, side: str) -> _Points:
        who = engine(self.name, line, model=row["model"], gpu=row[f"{side}system"], tp=row[f"{side}tp"])
        version = f"{row.get(f'{side}backend') or ''} {row.get(f'{side}version') or ''}".strip()
        return self.points[who, version[:VERSION] if version.isprintable() else ""]

    def _lengths(self, line: int, row: Row) -> tuple[int, int]:
        if row.get("prefix") not in (None, "", "0", "0.0"):
            raise ProfileError(f"{self.name}, line {line}: prompts with a cached prefix tell nothing of whole ones")
        return self._whole(line, row, "isl"), self._whole(line, row, "osl")

    def _whole(self, line: int, row: Row, column: str) -> int:
        return whole(self.name, line, column, row[column])

    def _number(self, line: int, row: Row, column: str) -> float:
        return number(self.name, line, column, row[column])


def parse(name: str, lines: Iterable[str]) -> tuple[list[Profile], list[str]]:
    """A profile for each model, system, TP and version of the engine, and what is to be said of them. Raises
    ProfileError, which names the line."""
    table = _Table(name)
    try:
        rows = csv.DictReader(lines)
        names = set(rows.fieldnames or ())
        pairs = set(PAIRS) <= names
        if not pairs and (missing := set(AGGREGATED) - names):
            raise ProfileError(f"{name}: the first line lacks {', '.join(sorted(missing))}")
        for line, row in enumerate(rows, 2):
            if line > MOST_ROWS:
                raise ProfileError(f"{name}: more than {MOST_ROWS} rows")
            if all(table.one_rank(line, row, side) for side in (("(p)", "(d)") if pairs else ("",))):
                (table.pair if pairs else table.aggregated)(line, row)
    except csv.Error as error:
        raise ProfileError(f"{name}: {error}") from error
    return table.profiles(), [f"{what} (rows: {count})" for what, count in table.notes.items()]
