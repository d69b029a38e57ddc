"""What the agent fetched itself, on disk: only that may be removed again to make room."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from workers.config import write_private
from workers.store.places import key
from workers.store.room import Kept
from workers.weights import WeightsReport

log = logging.getLogger(__name__)


class Entry(Struct, frozen=True, kw_only=True):
    """`checked_at`: when all of it was there and compared with what the hub says; 0: not yet."""

    source: str
    revision: str
    commit: str
    bytes: int
    began_at: float
    checked_at: float = 0.0


class Ledger:
    """By source and commit. Written before the first byte comes, so that nothing is forgotten."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries = {(one.source, one.commit): one for one in _read(file)}

    def put(self, entry: Entry) -> None:
        self._entries = {**self._entries, (entry.source, entry.commit): entry}
        self._save()

    def drop(self, source: str, commit: str) -> None:
        self._entries = {at: one for at, one in self._entries.items() if at != (source, commit)}
        self._save()

    def get(self, source: str, commit: str) -> Entry | None:
        return self._entries.get((source, commit))

    def checked(self) -> dict[tuple[str, str], float]:
        """When that was, by source and commit. From other threads too."""
        return {at: one.checked_at for at, one in self._entries.items() if one.checked_at}

    def kept(self, used: Mapping[str, float], *, apart: tuple[str, str] = ("", "")) -> list[Kept]:
        """All but `apart`. `used`: when an engine used them last, by source and revision."""
        return [
            Kept(one.source, one.commit, one.bytes, max(one.began_at, one.checked_at, *_used(one, used)))
            for at, one in self._entries.items()
            if at != apart
        ]

    def forget_gone(self, held: WeightsReport, but: Collection[str]) -> None:
        """What somebody else removed, as far as it was whole. `held`: a look of now."""
        there = {(one.source, revision) for one in held.models for revision in one.revisions}
        gone = [one for at, one in self._entries.items() if one.checked_at and at not in there]
        for one in gone if not held.left_out else ():
            if one.source not in but:
                self.drop(one.source, one.commit)

    def _save(self) -> None:
        write_private(self._file, msgspec.json.encode(list(self._entries.values())))


def _used(entry: Entry, used: Mapping[str, float]) -> Iterable[float]:
    names = {entry.commit, entry.revision, *(("",) if entry.revision in {"", "main"} else ())}
    return (used.get(key(entry.source, name), 0.0) for name in names)


def _read(file: Path) -> list[Entry]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Entry])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        log.error("%s cannot be read; what was fetched stays, as if it had come another way: %s", file, error)
        return []
