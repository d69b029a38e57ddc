"""Engine processes: start, recognise, signal, measure. A process is known by pid and kernel start time.

Engines run in a session of their own and outlive the agent. A marker in their environment tells whose they are
even when the agent's records are lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

MARKER = "FOREBAY_REPLICA"  # <home instance>/<partition>/<generation>
GPUS = "FOREBAY_GPUS"
PROC = Path("/proc")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was alive once. `born` is the kernel's start time in clock ticks since `boot`."""

    pid: int
    born: int
    boot: str


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose engine a process belongs to."""

    home: str
    partition: int
    generation: int

    def __str__(self) -> str:
        return f"{self.home}/{self.partition}/{self.generation}"

    @classmethod
    def parse(cls, text: str) -> Marker | None:
        home, _, rest = text.partition("/")
        partition, _, generation = rest.partition("/")
        if not (home and partition.isdecimal() and generation.isdecimal()):
            return None
        return cls(home, int(partition), int(generation))


@dataclass(frozen=True, slots=True)
class Marked:
    """A live process that carries this home's marker."""

    pid: int
    marker: Marker
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process tree uses. CPU seconds are per pid, so that a child's end does not look like a gain."""

    cpu_s: Mapping[int, float]
    memory_bytes: int


def boot_id() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def born(pid: int) -> int:
    """The kernel's start time of `pid`, 0 if there is no such live process: a pid alone may be given away."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return 0
    fields = stat.rpartition(b")")[2].split()
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])


def is_alive(process: Process) -> bool:
    return process.boot == boot_id() and process.born != 0 and born(process.pid) == process.born


class Parent(Protocol):
    """A process of ours that forked an engine, and so learns how it ended."""

    def exit_code(self, pid: int) -> int | None: ...

    def forget(self, pid: int) -> None: ...


class Children:
    """The engines this agent process started itself, or had forked: only of those can it learn the exit code."""

    def __init__(self) -> None:
        self._popen: dict[int, subprocess.Popen[bytes]] = {}
        self._forked: dict[int, Parent] = {}

    def start(self, argv: Sequence[str], env: Mapping[str, str], log_path: Path, *, nice: int = 0) -> Process:
        """Run `argv` in a session of its own, output appended to `log_path`, as many steps of priority below us as
        `nice` says. What it starts later inherits that."""
        fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(  # noqa: S603 - the engine's own command line, no shell
                list(argv),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(fd)
        self._popen[child.pid] = child
        if nice:
            with contextlib.suppress(OSError):  # it ended at once, or may not: priority is no condition
                os.setpriority(os.PRIO_PROCESS, child.pid, os.getpriority(os.PRIO_PROCESS, 0) + nice)
        return Process(child.pid, born(child.pid), boot_id())

    def was_forked(self, pid: int, parent: Parent) -> None:
        """`parent` is to be asked how `pid` ended."""
        self._forked[pid] = parent

    def exit_code(self, pid: int) -> int | None:
        """The exit code of an ended child (negative: signal); None while it runs or if it is not a child."""
        if parent := self._forked.get(pid):
            return parent.exit_code(pid)
        child = self._popen.get(pid)
        return child.poll() if child else None

    def forget(self, pid: int) -> None:
        """Of an ended child, once its exit code is noted."""
        if parent := self._forked.pop(pid, None):
            parent.forget(pid)
        elif self.exit_code(pid) is not None:
            del self._popen[pid]


def how_it_ended(code: int | None) -> str:
    if code is None:
        return "ended while no agent was watching"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exited with code {code}"


def signal_leader(process: Process, signum: signal.Signals) -> None:
    """To the leader only: an engine that is told to finish its requests must tell its own children."""
    if is_alive(process):
        _send(process.pid, signum)


def members(process: Process, marker: Marker) -> list[int]:
    """Live processes of an engine: its session, and whatever else carries its marker."""
    return sorted({*session_members(process), *(m.pid for m in marked(marker.home) if m.marker == marker)})


def session_members(process: Process) -> list[int]:
    """Live processes of the session that `process` led, whether or not it still lives."""
    if process.pid <= 0 or process.boot != boot_id():
        return []
    if (leader := born(process.pid)) and leader != process.born:
        return []  # the pid belongs to somebody else now, and with it the session number
    return [pid for pid in _pids() if session_of(pid) == process.pid and born(pid)]


def marked(home: str) -> list[Marked]:
    """Live processes that carry the marker of `home`, this process aside."""
    return [found for pid in _pids() if pid != os.getpid() and (found := _read_marker(pid, home))]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        _send(pid, signal.SIGKILL)


def tree(process: Process) -> list[psutil.Process]:
    """The process and all below it; empty if it is gone."""
    if not is_alive(process):
        return []
    try:
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def figures(processes: Sequence[psutil.Process]) -> Figures:
    """CPU seconds and memory. Private pages are summed; shared ones (libraries, shared memory) count once."""
    cpu, private, shared = {}, 0, 0
    for member in processes:
        try:
            with member.oneshot():
                times, memory = member.cpu_times(), member.memory_info()
        except psutil.Error:
            continue
        cpu[member.pid] = times.user + times.system
        private += max(0, memory.rss - memory.shared)
        shared = max(shared, memory.shared)
    return Figures(cpu, private + shared)


def pss_bytes(pids: Iterable[int]) -> int | None:
    """Memory of processes that share pages with each other, each page counted once; None when it cannot be read.

    Exact where forks share memory, but the kernel walks every page for it: some 20 ms per GB.
    """
    total = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return None
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def _send(pid: int, signum: signal.Signals) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        log.debug("pid %s ended before %s", pid, signum.name)
    except PermissionError:
        log.warning("may not send %s to pid %s", signum.name, pid)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return 0


def _read_marker(pid: int, home: str) -> Marked | None:
    try:
        environ = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    if MARKER.encode() not in environ or not born(pid):
        return None
    values = dict(item.partition("=")[::2] for item in environ.decode(errors="replace").split("\0"))
    marker = Marker.parse(values.get(MARKER, ""))
    if marker is None or marker.home != home:
        return None
    return Marked(pid, marker, tuple(filter(None, values.get(GPUS, "").split(","))))
