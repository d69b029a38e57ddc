"""Whether a model folder holds all of its weights, by names, sizes and headers alone. Weights are never loaded.

The folder is untrusted: whatever is read is bounded, names in an index may not lead out of it, and nothing but plain
files is opened. What is wrong with it is told, never raised.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from workers.weights import WeightsState

MOST_ENTRIES = 4096  # in one folder; what comes after them is not looked at
MAX_INDEX_BYTES = 32 * 2**20
MAX_HEADER_BYTES = 32 * 2**20
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_LARGEST = 2**60
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\..*)")

Key = tuple[str, int, int, int]  # path, size, time of change, inode


@dataclass(frozen=True, slots=True)
class Found:
    state: WeightsState
    bytes: int
    total_bytes: int | None
    message: str = ""


class Reader:
    """Remembers how long files must be, so that looking again costs one stat a file."""

    def __init__(self) -> None:
        self._expected: dict[Key, int | None] = {}
        self._indexes: dict[Key, tuple[frozenset[str], int | None] | str] = {}
        self._seen: set[Key] = set()

    def forget_unseen(self) -> None:
        """What was not looked at since the last call is gone, or another file by now."""
        self._expected = {key: value for key, value in self._expected.items() if key in self._seen}
        self._indexes = {key: value for key, value in self._indexes.items() if key in self._seen}
        self._seen = set()

    def look(self, folder: Path) -> Found | None:
        """None where it is no model folder, or holds no weights at all."""
        files = dict(_files(folder))
        weights = {name: key for name, key in files.items() if name.endswith(_WEIGHTS)}
        if CONFIG not in files and not any(name.endswith(".gguf") for name in weights):
            return None
        shards, total, problem = self._listed(files)
        if not weights and not shards:
            return None
        shards |= _siblings(weights)
        missing = sorted(shards - files.keys())
        held = sum(key[1] for key in weights.values())
        cut = sorted(name for name, key in weights.items() if self._is_cut(key))
        if problem or missing or cut:
            return Found(WeightsState.PARTIAL, held, _larger(total, held), problem or _why(missing, cut, len(shards)))
        return Found(WeightsState.COMPLETE, held, held)

    def _listed(self, files: dict[str, Key]) -> tuple[frozenset[str], int | None, str]:
        """(files that the index names, what it says they come to, what is wrong with it)."""
        if (key := files.get(INDEX)) is None:
            return frozenset(), None, ""
        self._seen.add(key)
        if key not in self._indexes:
            self._indexes[key] = _read_index(Path(key[0]), key[1])
        known = self._indexes[key]
        return (frozenset(), None, known) if isinstance(known, str) else (*known, "")

    def _is_cut(self, key: Key) -> bool:
        """Whether a safetensors file is not as long as its header says. Of other files only being empty tells."""
        if not key[0].endswith(".safetensors"):
            return key[1] == 0
        self._seen.add(key)
        if key not in self._expected:
            self._expected[key] = _expected_bytes(Path(key[0]), key[1])
        expected = self._expected[key]
        return expected is None or key[1] != expected


def is_inside(name: str) -> bool:
    """Whether a file of that name lies in its folder, wherever that is."""
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and "\\" not in name and not path.is_absolute() and ".." not in path.parts


def _files(folder: Path) -> Iterator[tuple[str, Key]]:
    """Plain files of the folder itself; links are followed, as caches are built of them, and those that lead nowhere
    are not there."""
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= MOST_ENTRIES:
                    return
                try:
                    found = entry.stat()
                except OSError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield entry.name, (entry.path, found.st_size, found.st_mtime_ns, found.st_ino)
    except OSError:
        return


def _read_index(path: Path, size: int) -> tuple[frozenset[str], int | None] | str:
    if size > MAX_INDEX_BYTES:
        return f"{INDEX} is larger than {MAX_INDEX_BYTES // 2**20} MiB"
    try:
        data = json.loads(path.read_bytes()[: MAX_INDEX_BYTES + 1])
        names = {name for name in data["weight_map"].values() if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{INDEX} cannot be read"
    if not names or len(names) > MOST_ENTRIES or not all(is_inside(name) for name in names):
        return f"{INDEX} names no files of its folder"
    metadata = data.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return frozenset(names), int(total) if isinstance(total, int | float) and 0 < total < _LARGEST else None


def _expected_bytes(path: Path, size: int) -> int | None:
    """Of a safetensors file: 8 bytes of length, a JSON header, data up to the largest offset. None: it is none."""
    try:
        with path.open("rb") as file:
            length = int(struct.unpack("<Q", file.read(8))[0])
            if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
                return None
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        end = max(ends, default=0)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, RecursionError):
        return None
    return 8 + length + end if type(end) is int and 0 <= end < _LARGEST else None


def _larger(total: int | None, held: int) -> int | None:
    return None if total is None else max(total, held)


def _siblings(weights: Iterable[str]) -> frozenset[str]:
    """The shards that go with those there, by their numbers: an index may come last."""
    found: set[str] = set()
    for name in weights:
        match = _SHARD.fullmatch(name)
        if match and int(match[3]) <= MOST_ENTRIES:
            found |= {f"{match[1]}-{n:05}-of-{match[3]}{match[4]}" for n in range(1, int(match[3]) + 1)}
        if len(found) > MOST_ENTRIES:
            break
    return frozenset(found)


def _why(missing: list[str], cut: list[str], shards: int) -> str:
    if missing:
        return f"{len(missing)} of {shards} weight files are missing, {missing[0][:100]} first"
    return f"{cut[0][:100]} is cut off or damaged"
