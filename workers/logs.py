"""Log files of a node: rotation under a running writer, tails, and excerpts with every secret starred out.

An offset counts the bytes a log ever held; `Log.base` of them have been rotated away into older files, of which the
last few are kept and still read.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from workers.redaction import LONGEST, decoded, redact

log = logging.getLogger(__name__)
MAX_BYTES = 16 * 2**20
KEEP = 3
CHUNK_BYTES = 32 * 1024
TAIL_BYTES = 16 * 1024
MARK_S = 5.0  # between two remembered moments of a log
MARKS = 24 * 720  # a day of them
OWN = "agent.log"  # the agent's own
WIDE_BYTES = 64 * 1024  # how far back what was wrong is looked for
CAUSES, CAUSE_CHARS = 3, 500  # lines of it
# vLLM's server process ends with this once its engine's process has: that one's traceback is a hundred lines above.
_POINTS_ABOVE = re.compile(r"see (the )?root cause above|see stack trace", re.IGNORECASE)
_ERROR = re.compile(r"(\([^)]*\) )?(ERROR \S+ \S+ \[[^\]]*\] )?[\w.]*(Error|Exception)\b.*: ")


class Log:
    """One log file, written by an engine or the agent with O_APPEND."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._base_path = path.with_suffix(".base")
        self.base = self._read_base()
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)
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

    def mark(self, now: float) -> None:
        """Remember that the log ends here at `now` (any clock, always the same), so that a moment can be found."""
        end = self.end()
        if not self._marks or (end != self._marks[-1][1] and now - self._marks[-1][0] >= MARK_S):
            self._marks.append((now, end))

    def at(self, moment: float) -> int:
        """The offset from which on all was written after `moment`, but for some seconds; where nothing is remembered
        of that time, of all that is there."""
        found = self.first()
        for when, end in self._marks:
            if when > moment:
                break
            found = end
        return found

    def first(self) -> int:
        """Where what is still there begins."""
        with self._lock:
            return self._files()[0][1]

    def read(
        self, offset: int, secrets: Iterable[str], limit: int = CHUNK_BYTES, *, until: int | None = None,
        finished: bool = False,
    ) -> tuple[int, str]:  # fmt: skip
        """Where the text starts, and the text from `offset` on (-1: the tail), whole lines where it can be. `until`:
        nothing from there on. `finished`: nobody goes on writing, so the last line is whole as it stands.

        What lies around the text is looked at too: a secret that a cut divides is starred out on both sides of it."""
        with self._lock:
            files = self._files()
            first, end = files[0][1], sum(files[-1][1:])
            end = end if until is None else min(end, until)
            start = max(end - min(TAIL_BYTES, limit), first) if offset < 0 else min(max(offset, first), max(end, first))
            begin = max(first, start - LONGEST)
            around = _span(files, begin, min(start + limit + LONGEST, end))
        data = around[start - begin : start - begin + limit]
        if offset < 0 and start > first and (newline := data.find(b"\n")) >= 0:
            start, data = start + newline + 1, data[newline + 1 :]
        stop = start + _whole(data, finished=(finished or until is not None), more=start + len(data) < end)
        shown = redact(decoded(around), secrets).encode()
        return start, decoded(shown[start - begin : stop - begin])

    def last_lines(self, since: int, secrets: Iterable[str], lines: int = 40, limit: int = 8 * 1024) -> str:
        """The end of what was written after `since`, for a report of how an engine ended. Where that only points to
        what was wrong in an engine's own process, lines of further above that say it come first."""
        start = max(since, self.base, self.end() - WIDE_BYTES)
        try:
            with self.path.open("rb") as file:
                file.seek(start - self.base)
                whole = decoded(file.read(WIDE_BYTES)).splitlines()
        except FileNotFoundError:
            return ""
        text = "\n".join(whole[-lines:])[-limit:]
        if _POINTS_ABOVE.search(text):
            causes = dict.fromkeys(line[:CAUSE_CHARS] for line in whole[:-lines] if _ERROR.match(line))
            text = "\n".join([*list(causes)[-CAUSES:], "...", text])
        return redact(text, secrets)

    def _files(self) -> list[tuple[Path, int, int]]:
        """What is there, oldest first: file, where it begins, how long it is."""
        try:
            found = [(self.path, self.base, self.path.stat().st_size)]
        except FileNotFoundError:
            found = [(self.path, self.base, 0)]
        for number in range(1, KEEP + 1):
            older, begins = self._numbered(number), found[0][1]
            size = older.stat().st_size if older.exists() else 0
            if not 0 < size <= begins:
                break
            found.insert(0, (older, begins - size, size))
        return found

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _read_base(self) -> int:
        try:
            return int(self._base_path.read_text())
        except (FileNotFoundError, ValueError):
            return 0


class Logs:
    """The folder of all logs of this node."""

    def __init__(self, folder: Path, hidden: Iterable[str] = ()) -> None:
        """`hidden`: secrets of this host that no text may show."""
        self._folder = folder
        self.hidden = frozenset(hidden)
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


def keep_own(folder: Path, line: str) -> None:
    """Keep what this process logs in a file beside the engines' logs, for people who look from afar."""
    handler = logging.FileHandler(folder / OWN, delay=True)
    handler.setFormatter(logging.Formatter(line))
    logging.getLogger().addHandler(handler)
    (folder / OWN).touch(0o600)


def file_name(name: str, partition: int) -> str:
    """Of the log of a partition's engines: told apart by number, readable by name."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:40]}-{partition}.log"


def _span(files: list[tuple[Path, int, int]], begin: int, end: int) -> bytes:
    parts = []
    for path, first, size in files:
        low, high = max(begin, first), min(end, first + size)
        if low < high:
            with path.open("rb") as file:
                file.seek(low - first)
                parts.append(file.read(high - low))
    return b"".join(parts)


def _whole(data: bytes, *, finished: bool, more: bool) -> int:
    """How much of `data` to show: whole lines. An unfinished one may hold half a secret, so it waits for its end; one
    that is longer than any secret is shown but for its last bytes."""
    if finished and not more:
        return len(data)
    at = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    if not more:
        at = max(at, len(data) - LONGEST)
    elif not at:
        at = max(len(data) - 1, 0)
    while 0 < at < len(data) and data[at] & 0xC0 == 0x80:  # not in the middle of a letter
        at -= 1
    return at
