"""What the agent knows of its replicas, kept on disk so that the next agent process can go on from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from workers.config import write_private
from workers.contract import NodeSpec, Phase
from workers.processes import Marker, Process, boot_id
from workers.reconcile import Replica

log = logging.getLogger(__name__)


def clock() -> float:
    """Seconds since the host's boot, suspension included: the same in every process, and it never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Ended(Struct, frozen=True, kw_only=True):
    """How a replica's last process ended."""

    code: int | None
    at: float
    log_tail: str = ""


class Record(Struct, frozen=True, kw_only=True):
    """A replica and the process that fills it. Times are of `clock()` within `boot`."""

    replica: Replica
    boot: str
    marker: str
    process: Process | None = None  # None: about to be started, or could not be
    port: int = 0
    side_port: int = 0
    log: str = ""  # file name
    log_start: int = 0  # offset at which this process began to write
    log_before: int = 0  # and at which the one before it did
    started: float = 0.0
    ready_after_s: float | None = None
    woken_after_s: float | None = None
    secret: str = ""  # the agent's own, for what only it may ask of the engine; "": nobody may
    level: int = 0  # of an engine that sleeps, or is about to
    rests: dict[str, int] = {}  # bytes that it holds of each of its GPUs while it sleeps
    engine_version: str = ""
    ended: Ended | None = None
    message: str = ""

    @property
    def partition(self) -> int:
        return self.replica.spec.partition

    @property
    def is_live(self) -> bool:
        return self.replica.phase != Phase.EXITED and self.process is not None

    def url(self, host: str) -> str:
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def its_marker(self) -> Marker:
        marker = Marker.parse(self.marker)
        if marker is None:
            raise ValueError(f"record of partition {self.partition}: {self.marker!r} is no marker")
        return marker


def by_partition(record: Record) -> str:
    return str(record.partition)


def by_marker(record: Record) -> str:
    marker = record.its_marker()
    return f"{marker.partition}-{marker.generation}"


class Book:
    """Records by partition, or as `key` says. Every change is on disk before it is believed."""

    def __init__(self, folder: Path, key: Callable[[Record], str] = by_partition) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder, self._key = folder, key
        self._records: dict[str, Record] = {}
        for path in sorted(folder.glob("*.json")):
            if record := _read(path):
                self._records[key(record)] = record

    def __iter__(self) -> Iterator[Record]:
        return iter(tuple(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: int | str) -> Record | None:
        return self._records.get(str(key))

    def replicas(self) -> Mapping[int, Replica]:
        return {record.partition: record.replica for record in self._records.values()}

    def put(self, record: Record) -> Record:
        key = self._key(record)
        if self._records.get(key) != record:
            write_private(self._path(key), msgspec.json.encode(record))
            self._records[key] = record
        return record

    def drop(self, key: int | str) -> None:
        self._path(str(key)).unlink(missing_ok=True)
        self._records.pop(str(key), None)

    def clear(self) -> None:
        for key in tuple(self._records):
            self.drop(key)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _read(path: Path) -> Record | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
        record.its_marker()
    except (msgspec.MsgspecError, ValueError) as error:
        # Its engine, if it runs, is found by its marker and stopped: it is better started anew than unwatched.
        log.error("%s cannot be read and is set aside: %s", path, error)
        path.replace(path.with_suffix(".unreadable"))
        return None
    if record.boot == boot_id():
        return record
    now = clock()
    gone = msgspec.structs.replace(record.ended, at=now) if record.ended else None
    replica = Replica(record.replica.spec, Phase.EXITED, now, asked=True)  # the host restarted: no fault of its own
    return msgspec.structs.replace(record, replica=replica, boot=boot_id(), process=None, ended=gone)


class HeldSpec:
    """The newest spec seen, on disk: an old message cannot talk a restarted agent back."""

    def __init__(self, path: Path, node: int) -> None:
        self._path, self._node = path, node
        self.spec = self._read()

    @property
    def generation(self) -> int:
        return self.spec.generation if self.spec else 0

    def take(self, spec: NodeSpec) -> bool:
        """Whether it is for this node and newer than the one held."""
        if spec.node != self._node:
            log.error("a spec for node %d reached node %d and is dropped", spec.node, self._node)
            return False
        if self.spec is not None and spec.generation <= self.spec.generation:
            return False
        write_private(self._path, msgspec.json.encode(spec))
        self.spec = spec
        return True

    def _read(self) -> NodeSpec | None:
        try:
            spec = msgspec.json.decode(self._path.read_bytes(), type=NodeSpec)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            log.error("%s cannot be read; the control plane will send it again: %s", self._path, error)
            return None
        return spec if spec.node == self._node else None
