"""From a ReplicaSpec to a running engine: leases its ports, writes the record, starts the process."""

from __future__ import annotations

import datetime
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from workers.book import Book, Record
from workers.contract import Device, DeviceKind, Phase, ReplicaSpec
from workers.devices import Source
from workers.engines import CannotStart, Command, Engine, Launch
from workers.engines.traces import Traces
from workers.logs import Log, Logs, file_name
from workers.nursery import NoFork, Nursery
from workers.ports import NoFreePort, lease
from workers.processes import GPUS, MARKER, Children, Marker, Process, boot_id
from workers.reconcile import Replica, Start
from workers.sockets import Sockets

log = logging.getLogger(__name__)
CPU_NICE = 5  # an engine on the host's own cores leaves room for the agent that watches it, and for the rest of us


@dataclass(frozen=True, slots=True)
class Place:
    """Where this node's engines listen and are reached."""

    instance: str
    host: str
    address: str
    engine_ports: range
    side_ports: range

    def probe_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104


class Starter:
    def __init__(
        self,
        place: Place,
        *,
        engines: Mapping[str, Engine],
        source: Source,
        book: Book,
        logs: Logs,
        children: Children,
        nursery: Nursery | None = None,
        sockets: Sockets | None = None,
    ) -> None:
        self.may_sleep: Callable[[ReplicaSpec], bool] = lambda _: False  # whether it is started so that it can
        self._place, self._engines, self._source = place, engines, source
        self._book, self._logs, self._children, self._nursery = book, logs, children, nursery
        self._sockets = sockets
        self.asleep: Callable[[], Iterable[Record]] = tuple  # whose ports are taken, too

    def not_yet(self, spec: ReplicaSpec) -> str:
        """Why a start had better wait, "" if it need not: on few cores an import beside the nursery's takes longer than
        the rest of it and a fork."""
        nursery = self._nursery_of(spec)
        return "the node is still importing vLLM, from which engines then start fast" if _is_importing(nursery) else ""

    def leaves_nothing(self, spec: ReplicaSpec) -> bool:
        """Whether an engine with nothing in flight may be killed where it stands: its teardown takes a second that the
        next one in the slot waits for. On CPU slots it is one process without shared memory (seen: nothing in /dev/shm
        afterwards, with NIXL too); on GPUs the ranks of one share some. Traces it has not sent yet would be lost."""
        devices = {device.uuid: device.kind for device in self._source.devices()}
        on_cpu = all(devices.get(uuid) == DeviceKind.CPU for uuid in spec.gpus)
        return on_cpu and Traces.configured(os.environ) is None

    def start(self, action: Start, now: float) -> Record:
        """The record is on disk before the process exists: an agent that dies in between finds it by its marker."""
        spec, previous = action.spec, self._book.get(action.spec.partition)
        can_sleep = self.may_sleep(spec)
        record = Record(
            replica=Replica(spec, Phase.STARTING, now, restarts=action.restarts, can_sleep=can_sleep),
            secret=secrets.token_urlsafe(32),
            boot=boot_id(),
            marker=str(Marker(self._place.instance, spec.partition, spec.generation)),
            log=file_name(spec.name, spec.partition),
            log_start=previous.log_start if previous else 0,
            log_before=previous.log_before if previous else 0,
            started=now,
            ended=previous.ended if previous and previous.replica.spec.content() == spec.content() else None,
        )
        try:
            return self._start(record, previous)
        except Exception as error:  # model files are untrusted: whatever comes of them is told, and it rests
            unforeseen = not isinstance(error, CannotStart | NoFreePort | OSError)
            log.error("%s cannot be started: %s", spec.name, error, exc_info=unforeseen)
            failed = Replica(spec, Phase.EXITED, now, restarts=action.restarts)
            return self._book.put(
                msgspec.structs.replace(record, replica=failed, process=None, message=f"cannot start: {error}"[:256])
            )

    def _start(self, record: Record, previous: Record | None) -> Record:
        spec = record.replica.spec
        engine = self._engines.get(spec.engine)
        if engine is None:
            raise CannotStart(f"this agent knows no engine {spec.engine!r}")
        port, side_port = self._lease(previous)
        launch = Launch(
            spec=spec,
            devices=self._devices(spec),
            host=self._place.host,
            address=self._place.address,
            port=port,
            side_port=side_port,
            cores=self._source.cores(spec.gpus),
            sockets=self._sockets.folder(record.marker) if self._sockets else "",
            secret=record.secret,
            can_sleep=record.replica.can_sleep,
        )
        command = engine.command(launch)
        file = self._logs.of(record.log)
        file.rotate()
        began = file.end()
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.note(f"{when} starting {spec.deployment} as {spec.role}, generation {spec.generation}")
        record = self._book.put(
            msgspec.structs.replace(
                record,
                port=port,
                side_port=side_port,
                log_start=began,
                log_before=record.log_start,
                engine_version=engine.version(),
            )
        )
        env = {**command.env, MARKER: record.marker, GPUS: ",".join(spec.gpus)}
        process = self._run(Command(command.argv, env), launch, file, record.engine_version)
        log.info("%s started: pid %d, port %d", spec.name, process.pid, port)
        return self._book.put(msgspec.structs.replace(record, process=process))

    def _run(self, command: Command, launch: Launch, file: Log, version: str) -> Process:
        """Forked where that can be, else plainly, which the engine's log then tells the reason of."""
        if nursery := self._nursery_of(launch.spec):
            try:
                process = nursery.fork(command.argv, command.env, file.path, version)
            except NoFork as reason:
                log.info("%s is started plainly: %s", launch.spec.name, reason)
                file.note(f"plain start: {reason}")
            else:
                self._children.was_forked(process.pid, nursery)
                file.note(f"forked from the nursery: pid {process.pid}")
                return process
        return self._children.start(command.argv, command.env, file.path, nice=CPU_NICE if launch.cores else 0)

    def _nursery_of(self, spec: ReplicaSpec) -> Nursery | None:
        return self._nursery if spec.engine == "vllm" else None

    def _devices(self, spec: ReplicaSpec) -> tuple[Device, ...]:
        known = {device.uuid: device for device in self._source.devices()}
        if missing := [uuid for uuid in spec.gpus if uuid not in known]:
            raise CannotStart(f"device {missing[0]} is not on this node")
        return tuple(known[uuid] for uuid in spec.gpus)

    def _lease(self, previous: Record | None) -> tuple[int, int]:
        """An engine that is down keeps its ports leased: it is soon started again, and found where it was."""
        others = [record for record in self._book if previous is None or record.partition != previous.partition]
        others += self.asleep()
        place = self._place
        port = lease(place.engine_ports, {r.port for r in others}, place.host, previous.port if previous else 0)
        side = lease(place.side_ports, {r.side_port for r in others}, place.host, previous.side_port if previous else 0)
        return port, side


def _is_importing(nursery: Nursery | None) -> bool:
    return nursery is not None and nursery.is_importing()
