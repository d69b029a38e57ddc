"""Where models may lie on this node - folders that its operator names, the Hugging Face cache - and what lies there.

Names are not trusted: the walk goes three folders deep, into so many folders, and tells how many it left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace

from workers.store.folder import MOST_ENTRIES, Reader
from workers.weights import LONGEST_SOURCE, MOST, Weights, WeightsReport

DEPTH = 3
MOST_FOLDERS = 4096  # looked into in one walk
MOST_REFERENCES = 256
_REPOSITORY = re.compile(r"models--([\w.-]{1,96})--([\w.-]{1,96})")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_REVISION = re.compile(r"[\w][\w./-]{0,63}")


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what engines of this node download."""
    home = Path(environ.get("HF_HOME") or Path(environ.get("HOME") or "/") / ".cache" / "huggingface")
    return Path(environ.get("HF_HUB_CACHE") or home / "hub")


def snapshots(cache: Path) -> Iterator[tuple[str, tuple[str, ...], Path]]:
    """(repository, the commit and the branches that point to it, folder) of what the cache holds."""
    for repository in _folders(cache):
        if (match := _REPOSITORY.fullmatch(repository.name)) is None:
            continue
        names = _references(repository / "refs")
        for snapshot in _folders(repository / "snapshots"):
            if _COMMIT.fullmatch(snapshot.name):
                known_as = (snapshot.name, *sorted(ref for ref, to in names.items() if to == snapshot.name))
                yield f"{match[1]}/{match[2]}", known_as[:16], snapshot


@dataclass(slots=True)
class Places:
    """`roots`: folders of models, or of folders of models."""

    roots: tuple[Path, ...]
    cache: Path
    _reader: Reader = field(default_factory=Reader)

    def look(
        self,
        also: Iterable[str],
        used: Mapping[str, float],
        checked: Mapping[tuple[str, str], float] = MappingProxyType({}),
    ) -> WeightsReport:
        """All that is held. `also`: model folders that engines here are to use, wherever they lie. `used`: when that
        was, by `key`. `checked`: when they were compared with what the hub says, by source and commit."""
        found: dict[tuple[str, tuple[str, ...]], Weights] = {}
        budget = _Budget(MOST_FOLDERS)
        folders = [path for root in self.roots for path in _walk(root, DEPTH, budget)]
        for folder in [*(Path(path) for path in also if path.startswith("/")), *folders]:
            self._note(found, str(folder), (), folder, used)
        for repository, known_as, folder in snapshots(self.cache):
            self._note(found, repository, known_as, folder, used)
        self._reader.forget_unseen()
        told = (replace(one, checked_at=checked.get((one.source, one.revisions[0]), 0.0)) if one.revisions else one
                for one in found.values())  # fmt: skip
        models = sorted(told, key=lambda one: (-one.used_at, one.source, one.revisions))
        return WeightsReport(models=tuple(models[:MOST]), left_out=max(0, len(models) - MOST) + budget.left_out)

    def _note(
        self,
        found: dict[tuple[str, tuple[str, ...]], Weights],
        source: str,
        known_as: tuple[str, ...],
        folder: Path,
        used: Mapping[str, float],
    ) -> None:
        if (source, known_as) in found or len(source) > LONGEST_SOURCE or (seen := self._reader.look(folder)) is None:
            return
        found[source, known_as] = Weights(
            source=source,
            revisions=known_as,
            state=seen.state,
            bytes=min(seen.bytes, 2**60),
            total_bytes=seen.total_bytes,
            used_at=max(used.get(key(source, name), 0.0) for name in _asked_as(known_as)),
            message=seen.message[:256],
        )


def key(source: str, revision: str) -> str:
    """A model by where it comes from."""
    return f"{source}@{revision}" if revision else source


def _asked_as(known_as: tuple[str, ...]) -> tuple[str, ...]:
    """Revisions that mean these files; none said means the main branch."""
    return known_as if known_as and "main" not in known_as else ("", *known_as)


@dataclass(slots=True)
class _Budget:
    left: int
    left_out: int = 0


def _walk(root: Path, depth: int, budget: _Budget) -> Iterator[Path]:
    """The folder and those below it. Links are followed, since models are often linked to; the depth ends loops."""
    if budget.left <= 0:
        budget.left_out += 1
        return
    budget.left -= 1
    yield root
    if depth > 0 and not (root / "config.json").exists():
        for folder in _folders(root):
            yield from _walk(folder, depth - 1, budget)


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            named = list(islice(entries, MOST_ENTRIES))
        return sorted(Path(entry.path) for entry in named if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []


def _references(path: Path) -> dict[str, str]:
    """By branch or tag, its commit; names with slashes lie in folders."""
    found: dict[str, str] = {}
    files = (Path(at) / name for at, _, names in os.walk(path) for name in names)
    for file in islice(files, MOST_REFERENCES):
        branch = file.relative_to(path).as_posix()
        try:
            with file.open("rb") as opened:
                commit = opened.read(128).decode("ascii", "replace").strip()
        except OSError:
            continue
        if _REVISION.fullmatch(branch) and _COMMIT.fullmatch(commit):
            found[branch] = commit
    return found
