"""A node's part in the way of a log, played with the agent's own code: it answers whatever is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.telemetry import logs
from workers import excerpts
from workers.book import Record, clock
from workers.contract import Phase, ReplicaSpec, Role
from workers.logs import OWN, Logs
from workers.reconcile import Replica


class Node:
    """`log` is the engine's of `partition`; `began` where its present process began to write."""

    def __init__(self, folder: Path, number: int, partition: int) -> None:
        self.number, self.logs = number, Logs(folder, hidden={"node-secret"})
        self.log, self.own = self.logs.of("p0-1.log"), self.logs.of(OWN)
        spec = ReplicaSpec(
            partition=partition, name="p0", deployment="chat", role=Role.DECODE, gpus=("g",), model="/m",
            served_names=("chat",), api_key="engine-secret",
        )  # fmt: skip
        self.record = Record(replica=Replica(spec, Phase.READY, 0.0), boot="", marker="", log="p0-1.log")

    def write(self, text: str) -> None:
        with self.log.path.open("a") as file:
            file.write(text)
        self.log.mark(clock())

    def report(self) -> None:
        asked = logs.wanted(self.number)
        logs.keep(
            self.number, excerpts.of(asked, [self.record], self.logs, self.logs.hidden | {"engine-secret"}, clock())
        )

    @contextmanager
    def reporting(self) -> Iterator[None]:
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.02):
                self.report()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
