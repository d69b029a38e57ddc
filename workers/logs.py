"""Engine log files: rotation under a running writer, tails, and redaction that keeps every offset right.

An offset counts the bytes an engine's log ever held; `Log.base` of them have been rotated away.
"""

from __future__ import annotations

import codecs
import logging
import re
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)
MAX_BYTES = 16 * 2**20
KEEP = 3
CHUNK_BYTES = 32 * 1024
TAIL_BYTES = 16 * 1024

_SECRETS = re.compile(
    r"(?:hf_|sk-|fb[ejn]?-)[A-Za-z0-9_-]{12,}"
    r"|(?<=[Bb]earer )\S{8,}"
    r"|(?i:(?<=api_key=)|(?<=api-key=)|(?<=api_key': )|(?<=token=)|(?<=password=))['\"]?[^\s'\",)]{6,}"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)


def _one_byte_each(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "?" * (error.end - error.start), error.end


codecs.register_error("forebay_one_byte_each", _one_byte_each)


class Log:
    """One engine's log file, written by the engine with O_APPEND."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._base_path = path.with_suffix(".base")
        self.base = self._read_base()
        self._lock = threading.Lock()  # a reader must not see the file truncated and the base not yet moved

    def end(self) -> int:
        try:
            return self.base + self.path.stat().st_size
        except FileNotFoundError:
            return self.base

    def note(self, text: str) -> None:
        """A line of the agent's own."""
        with self.path.open("a") as file:
            file.write(f"[forebay] {text}\n")
        self.path.chmod(0o600)

    def rotate(self, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> bool:
        """Copy and truncate: the writer holds the file open. What it writes in between is lost, some bytes."""
        with self._lock:
            return self._rotate(max_bytes, keep)

    def _rotate(self, max_bytes: int, keep: int) -> bool:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return False
        if size < max_bytes:
            return False
        self.base += self._copy(keep) or size
        with self.path.open("r+b") as file:
            file.truncate(0)
        self._base_path.write_text(str(self.base))
        return True

    def _copy(self, keep: int) -> int:
        """How many bytes were kept as the newest old file; 0 where there is no room: a full disk is not to be filled
        further, and the older files are worth more than half of this one."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        try:
            shutil.copyfile(self.path, partial)
        except OSError as error:
            partial.unlink(missing_ok=True)
            log.warning("%s is emptied, for it cannot be copied: %s", self.path, error)
            return 0
        partial.chmod(0o600)
        for number in range(keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        return partial.replace(self._numbered(1)).stat().st_size

    def read(self, offset: int, secrets: Iterable[str], limit: int = CHUNK_BYTES) -> tuple[int, str]:
        """Where the text starts, and the text from `offset` on (-1: the tail), whole lines where it can be."""
        with self._lock:
            start, data = self._read(offset, limit)
        return start, redact(data.decode("utf-8", "forebay_one_byte_each"), secrets)

    def _read(self, offset: int, limit: int) -> tuple[int, bytes]:
        tail = offset < 0
        start = max(self.end() - min(TAIL_BYTES, limit), self.base) if tail else max(offset, self.base)
        try:
            with self.path.open("rb") as file:
                file.seek(start - self.base)
                data = file.read(limit)
        except FileNotFoundError:
            return start, b""
        if tail and start > self.base and (newline := data.find(b"\n")) >= 0:
            start, data = start + newline + 1, data[newline + 1 :]
        if 0 <= (newline := data.rfind(b"\n")) < len(data) - 1:
            data = data[: newline + 1]  # an unfinished line may hold half a secret, or half a letter
        return start, data

    def last_lines(self, since: int, secrets: Iterable[str], lines: int = 40, limit: int = 8 * 1024) -> str:
        """The end of what was written after `since`, for a report of how an engine ended."""
        start = max(since, self.base, self.end() - limit)
        try:
            with self.path.open("rb") as file:
                file.seek(start - self.base)
                text = file.read(limit).decode("utf-8", "forebay_one_byte_each")
        except FileNotFoundError:
            return ""
        return redact("\n".join(text.splitlines()[-lines:]), secrets)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _read_base(self) -> int:
        try:
            return int(self._base_path.read_text())
        except (FileNotFoundError, ValueError):
            return 0


class Logs:
    """The folder of all engine logs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Log] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Log:
        with self._lock:
            return self._open.setdefault(name, Log(self._folder / name))

    def prune(self, keep: Iterable[str], older_than_s: float = 7 * 86400.0) -> None:
        """Removes logs that nothing has written for long, those named in `keep` aside."""
        kept = tuple(keep)
        for path in self._folder.iterdir():
            stem = path.name.partition(".")[0] + ".log"
            if stem not in kept and time.time() - path.stat().st_mtime > older_than_s:
                path.unlink(missing_ok=True)


def file_name(name: str, partition: int) -> str:
    """Of the log of a partition's engines: told apart by number, readable by name."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:40]}-{partition}.log"


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret starred out, its length in bytes unchanged so that offsets stay right."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, _stars(secret))
    return _SECRETS.sub(lambda match: _stars(match[0]), text)


def _stars(secret: str) -> str:
    return "*" * len(secret.encode())
