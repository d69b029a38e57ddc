"""Brings a model's files from its hub into the Hugging Face cache, or takes them out of it, by the hub's own client.

It runs in the engine's Python, which has huggingface_hub, as a program of its own: of this project it imports nothing.
What it does it says as lines of JSON: what there is to do, then nothing until a line `go` comes, then bytes, then done.
A file is seen by others once its content was compared with what the hub says of it, and not before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

CANNOT, ENDED = 3, 4  # exit codes: it says why; whoever asked is gone
SAY_EVERY_S = 0.5
BLOCK = 2**20
INDEX = "model.safetensors.index.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
NOT_READ = (".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".ckpt", ".png", ".jpg", ".gif", ".mp4", ".pdf")
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "optimizer.pt", "scheduler.pt")
MOST_FILES, MOST_INDEX_BYTES, MOST_SMALL_BYTES = 4096, 32 * 2**20, 64 * 2**20
UNFINISHED = ".forebay.incomplete"
_SUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Cannot(Exception):
    """The message tells a person why."""


@dataclass(frozen=True)
class File:
    """`sum`: sha256 of what lies in large file storage, else git's sha1. It names the file in the cache, too."""

    name: str
    size: int
    sum: str


def chosen(files: Iterable[File], indexed: Iterable[str] = ()) -> list[File]:
    """What an engine reads, small files first: of weights the one form that it would take. `indexed`: those that the
    index names, where there is one."""
    known = {file.name: file for file in files}
    small = [file for file in known.values() if not file.name.endswith((*WEIGHTS, *NOT_READ))]
    small = [file for file in small if file.size <= MOST_SMALL_BYTES and not file.name.startswith("original/")]
    top = [file for file in known.values() if "/" not in file.name and file.name not in NOT_WEIGHTS]
    tensors = [file for file in top if file.name.endswith(".safetensors")]
    if named := set(indexed):
        if missing := sorted(named - known.keys()):
            raise Cannot(f"the hub has not all of the files that {INDEX} names: {missing[0][:100]} is missing")
        tensors = [file for file in tensors if file.name.startswith("consolidated")]
        tensors += [known[name] for name in named - {file.name for file in tensors}]
    weights = tensors or next(
        filter(None, ([file for file in top if file.name.endswith(ending)] for ending in (".bin", ".pt"))), []
    )
    if not weights:
        raise Cannot("it holds no weights that an engine loads by itself")
    return [*sorted(small, key=lambda file: file.name), *sorted(weights, key=lambda file: file.name)]


def is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and "\\" not in name and not path.is_absolute() and ".." not in path.parts


def is_sound(path: Path, file: File) -> bool:
    """Whether it holds what the hub says."""
    if path.stat().st_size != file.size:
        return False
    git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    made = git if len(file.sum) == 40 else hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(BLOCK):
            made.update(block)
    return made.hexdigest() == file.sum


class Fetch:
    """One repository at one revision. `hub`: the module huggingface_hub."""

    def __init__(self, hub: Any, repository: str, revision: str, cache: Path) -> None:
        from huggingface_hub import file_download, hf_api, utils

        self._hub, self._http, self._listing, self._utils = hub, file_download, hf_api, utils
        self._repository, self._revision, self._cache = repository, revision or "main", cache
        self._folder = cache / f"models--{repository.replace('/', '--')}"
        self._blobs = self._folder / "blobs"
        self._api = hub.HfApi()
        self._files: list[File] = []
        self.commit = ""
        self._whole, self._part = 0, Path()  # bytes of files that are there; the one under way

    def plan(self) -> dict[str, Any]:
        """Asks the hub; what there is to do."""
        self.commit = str(self._api.model_info(self._repository, revision=self._revision).sha)
        if not _SUM.fullmatch(self.commit):
            raise Cannot(f"the hub gave {self.commit[:64]!r} for a commit")
        listed = list(self._listed())
        index = next((file for file in listed if file.name == INDEX), None)
        self._files = chosen(listed, self._indexed(index) if index else ())
        return {
            "commit": self.commit,
            "total_bytes": sum(file.size for file in self._files),
            "left_bytes": self._left(),
        }

    def bring(self) -> None:
        for file in self._files:
            self._bring(file)
        self._refer()

    def bytes(self) -> int:
        """That are there."""
        return self._whole + _size(self._part)

    def _listed(self) -> Iterator[File]:
        for count, entry in enumerate(
            self._api.list_repo_tree(self._repository, recursive=True, revision=self.commit), start=1
        ):
            if count > MOST_FILES:
                raise Cannot(f"it holds more than {MOST_FILES} files")
            if not isinstance(entry, self._listing.RepoFile):
                continue
            found = File(entry.path, int(entry.size), str(entry.lfs.sha256 if entry.lfs else entry.blob_id))
            if not is_inside(found.name) or not _SUM.fullmatch(found.sum) or found.size < 0:
                raise Cannot(f"the hub lists a file that cannot be: {found.name[:100]!r}")
            yield found

    def _indexed(self, index: File) -> set[str]:
        if index.size > MOST_INDEX_BYTES:
            raise Cannot(f"{INDEX} is larger than {MOST_INDEX_BYTES // 2**20} MiB")
        self._bring(index)
        self._whole = 0
        try:
            named = json.loads((self._blobs / index.sum).read_bytes())["weight_map"].values()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Cannot(f"{INDEX} cannot be read") from None
        return {str(name) for name in named}

    def _left(self) -> int:
        there = (_size(self._blobs / file.sum) or _size(self._unfinished(file)) for file in self._files)
        return sum(max(0, file.size - size) for file, size in zip(self._files, there, strict=True))

    def _bring(self, file: File) -> None:
        """Into the cache, and known there by its name."""
        blob = self._blobs / file.sum
        with self._locked(file):
            if blob.exists() and not is_sound(blob, file):
                blob.unlink()
            if not blob.exists():
                self._download(file, blob)
        link = Path(self._hub.hf_hub_download(self._repository, file.name, revision=self.commit, cache_dir=self._cache))
        if (real := link.resolve()) != blob.resolve() and not is_sound(real, file):  # the hub has other names for files
            real.unlink()
            raise Cannot(_bad(file))
        self._whole, self._part = self._whole + file.size, Path()

    def _download(self, file: File, blob: Path) -> None:
        """Goes on where an earlier process ended, which the client by itself does not."""
        self._part = part = self._unfinished(file)
        if _size(part) > file.size:
            part.unlink()
        with part.open("ab") as opened:
            self._http.http_get(
                self._hub.hf_hub_url(self._repository, file.name, revision=self.commit),
                opened,
                resume_size=opened.tell(),
                headers=self._utils.build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )
            opened.flush()
            os.fsync(opened.fileno())
        if not is_sound(part, file):
            part.unlink()
            raise Cannot(_bad(file))
        part.chmod(0o644)
        part.replace(blob)

    def _refer(self) -> None:
        """The branch means this commit from now on: an engine without a network goes by that, so it comes last."""
        if self._revision == self.commit:
            return
        reference = self._folder / "refs" / self._revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        fresh = reference.with_name(f"{reference.name}.{os.getpid()}")
        fresh.write_text(self.commit)
        fresh.replace(reference)

    def _unfinished(self, file: File) -> Path:
        return self._blobs / f"{file.sum}{UNFINISHED}"

    @contextmanager
    def _locked(self, file: File) -> Iterator[None]:
        """As the client locks it: an engine that wants the same file waits for us, or we for it."""
        lock = self._cache / ".locks" / self._folder.name / f"{file.sum}.lock"
        for folder in (lock.parent, self._blobs):
            folder.mkdir(parents=True, exist_ok=True)
        with self._utils.WeakFileLock(lock):
            yield


def remove(hub: Any, repository: str, commit: str, cache: Path) -> None:
    """One revision, and what no other of the repository needs."""
    found = hub.scan_cache_dir(cache)
    mine = frozenset(repo for repo in found.repos if repo.repo_type == "model" and repo.repo_id == repository)
    if any(revision.commit_hash == commit for repo in mine for revision in repo.revisions):
        replace(found, repos=mine).delete_revisions(commit).execute()
    for part in (cache / f"models--{repository.replace('/', '--')}" / "blobs").glob(f"*{UNFINISHED}"):
        part.unlink()


def main() -> int:
    options = _options()
    go = threading.Event()
    threading.Thread(target=_hear, args=(go,), daemon=True).start()
    try:
        import huggingface_hub
    except ImportError as error:
        return _say({"error": f"huggingface_hub cannot be imported: {error}"}, CANNOT)
    try:
        if options.remove:
            remove(huggingface_hub, options.repository, options.remove, options.cache)
        else:
            _fetch(Fetch(huggingface_hub, options.repository, options.revision, options.cache), go)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return _say({"error": _why(error)}, CANNOT)
    return _say({"done": True}, 0)


def _fetch(fetch: Fetch, go: threading.Event) -> None:
    _say(fetch.plan())
    go.wait()
    over = threading.Event()

    def tell() -> None:
        while not over.wait(SAY_EVERY_S):
            _say({"bytes": fetch.bytes()})

    threading.Thread(target=tell, daemon=True).start()
    try:
        fetch.bring()
    finally:
        over.set()


def _hear(go: threading.Event) -> None:
    """Whoever started it holds the other end: with them gone, nobody would know of it."""
    while said := os.read(0, 4096):
        if b"go" in said:
            go.set()
    os._exit(ENDED)


def _say(said: dict[str, Any], code: int = 0) -> int:
    print(json.dumps(said), flush=True)
    return code


def _bad(file: File) -> str:
    return f"{file.name[:120]} is not what the hub says it is (checksum): what came was removed"


def _why(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:240]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.name else 0
    except OSError:
        return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository")
    parser.add_argument("--revision", default="")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--remove", default="", metavar="COMMIT", help="take this revision out instead")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
