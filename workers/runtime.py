"""Puts the agent together and runs it until it is told to end."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

from workers import processes
from workers.agent import Agent
from workers.app import Nudges, build_app
from workers.book import Book, HeldSpec, Record, by_marker
from workers.config import Config, Settings
from workers.contract import DeviceKind, DeviceSample, NodeSpec, Phase
from workers.devices import Source
from workers.devices.discover import discover
from workers.dormancy import REST_BYTES
from workers.engines import Engine
from workers.engines.simulated import Simulated
from workers.engines.vllm import Vllm
from workers.engines.vllm_version import interpreter
from workers.exposition import Listener
from workers.logs import Logs
from workers.measuring import Program
from workers.nursery import Nursery
from workers.probes import Prober
from workers.processes import Children
from workers.qualifying import Qualifier
from workers.redaction import of_environment, of_url
from workers.reporter import Reporter
from workers.sampler import Sampler
from workers.sleepers import Bounds, Sleepers
from workers.sockets import Sockets
from workers.starter import CPU_NICE, Place, Starter
from workers.store.downloading import Hub
from workers.store.fetcher import Fetcher
from workers.store.keeper import Keeper
from workers.store.ledger import Ledger
from workers.store.places import Places, hub_cache
from workers.turns import Turns
from workers.uplink import Uplink
from workers.view import View

log = logging.getLogger(__name__)
DONE, CONFLICT, REVOKED = 0, 75, 78  # exit codes; after 75 and 78 a supervisor must not start the agent again
LOOK_S = 0.5


class Runtime:
    """Everything of one agent process."""

    def __init__(self, settings: Settings, config: Config) -> None:
        """The caller holds the home."""
        home, held = settings.home, HeldSpec(settings.home.path / "spec.json", config.node)
        vllm, source = Vllm(settings.vllm), discover(settings, config)
        hidden = {config.node_token} | of_url(config.broker_url) | of_environment(os.environ)
        children, logs, book = Children(), Logs(home.logs, hidden), Book(home.replicas)
        engines: dict[str, Engine] = {"vllm": vllm, "simulated": Simulated()}
        self._nursery = _nursery(settings, config, vllm, source)
        python = partial(interpreter, settings.vllm) if settings.vllm else str
        place = Place(config.instance, config.listen_host(), config.address, settings.engine_ports, settings.side_ports)
        sockets = Sockets(home.path, config.instance)
        starter = Starter(
            place, engines=engines, source=source, book=book, logs=logs, children=children, nursery=self._nursery,
            sockets=sockets,
        )  # fmt: skip
        prober = Prober(place.probe_host())
        program = Program(home.path, source, python)
        self._qualifier = Qualifier(home.path, program=program, source=source, samples=self._samples)
        bounds = Bounds(settings.sleep_cap_bytes, settings.sleep_rest_bytes or REST_BYTES)
        self._sleepers = Sleepers(
            home.asleep, bounds, book, reading=lambda: self._sampler.latest,
            source=source, prober=prober, turns=Turns(place.probe_host()), children=children,
        )  # fmt: skip
        self._sampler = Sampler(source, lambda: (*book, *self._sleepers), prober, home.path, self._qualifier.holders)
        starter.may_sleep, starter.asleep = self._sleepers.may_start_able, partial(tuple, self._sleepers)
        self._agent = Agent(
            instance=config.instance, held=held, book=book, logs=logs, children=children, engines=engines,
            starter=starter, prober=prober, qualifier=self._qualifier, sleepers=self._sleepers,
            sockets=sockets, usable=self._sampler.usable,
        )  # fmt: skip
        self._keeper, self._fetcher = _weights(settings, held, self._agent, python)
        self._reporter = Reporter(
            config, self._agent, Uplink(config.url, config.node_token),
            sampler=self._sampler, prober=prober, logs=logs, engines=engines, keeper=self._keeper,
            fetcher=self._fetcher, simulated=source.simulated,
        )  # fmt: skip
        self._tell_of_changes()
        self._metrics = Listener(settings.metrics, self._reporter.figures) if settings.metrics else None
        self._nudges = _nudges(config, self._agent)
        log.info("node %d (%s): %s", config.node, config.name, source.driver())

    def _samples(self) -> tuple[DeviceSample, ...]:
        return self._sampler.latest.samples

    def _tell_of_changes(self) -> None:
        self._agent.on_change, self._keeper.on_change = self._changed, self._found
        self._fetcher.on_change = self._reporter.soon

    def _changed(self) -> None:
        self._reporter.soon()
        self._keeper.soon()
        self._fetcher.soon()

    def _found(self) -> None:
        self._reporter.soon()
        self._fetcher.soon()

    def run(self, stop: threading.Event) -> int:
        """Until `stop` is set or there is no more to do; the exit code. Engines go on: the next agent adopts them."""
        if self._nursery:
            self._nursery.launch()
        self._agent.adopt()
        threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("agent", self._agent.run),
                ("sampler", self._sampler.run),
                ("reporter", self._reporter.run),
                ("weights", self._keeper.run),
                ("fetcher", self._fetcher.run),
            )
        ]
        for thread in threads:
            thread.start()
        if self._nudges:
            self._nudges.start()
        code = self._wait(stop)
        for part in (self._agent, self._reporter, self._sampler, self._keeper, self._fetcher):
            part.stop()
        threads[0].join(5.0)  # whatever the agent is doing to a process, it shall finish and write down
        threads[-1].join(5.0)
        self._qualifier.stop()
        if self._nursery:
            self._nursery.close()
        if self._nudges:
            self._nudges.stop()
        if self._metrics:
            self._metrics.close()
        return code

    def _wait(self, stop: threading.Event) -> int:
        while not stop.wait(LOOK_S):
            if self._agent.finished.is_set():
                log.error("this node was revoked; its engines are stopped")
                return REVOKED
            if self._reporter.conflict.is_set():
                log.error("another agent reports as this node; engines are left alone")
                return CONFLICT
        return DONE


def _weights(settings: Settings, held: HeldSpec, agent: Agent, python: Callable[[], str]) -> tuple[Keeper, Fetcher]:
    """Who knows which weights lie on the node, and who fetches them."""
    home, cache = settings.home.path, hub_cache(os.environ)
    ledger = Ledger(home / "weights-fetched.json")

    def spec() -> NodeSpec | None:
        return held.spec

    def view() -> View:
        return agent.view

    keeper = Keeper(Places(settings.models, cache), home / "weights-used.json", spec=spec, view=view)
    keeper.checked = ledger.checked
    hub, limits = Hub(home, cache, python), settings.limits
    return keeper, Fetcher(hub, ledger, cache=cache, limits=limits, keeper=keeper, spec=spec, view=view)


def _nudges(config: Config, agent: Agent) -> Nudges | None:
    if not (config.broker_url and config.queue):
        return None
    return Nudges(build_app(config.broker_url, config.queue, agent.submit), f"node@{config.name}")


def _nursery(settings: Settings, config: Config, vllm: Vllm, source: Source) -> Nursery | None:
    """On CPU slots only: a driver's state would not live through a fork."""
    slots = [device.uuid for device in source.devices() if device.kind == DeviceKind.CPU]
    if not (settings.fast_start and settings.vllm and slots):
        return None
    env = vllm.import_env(config.address)
    return Nursery(settings.vllm, env, settings.home.path / "nursery.log", nice=CPU_NICE)


def stop_engines(settings: Settings, config: Config, grace_s: float) -> int:
    """Stop every engine of this home: SIGTERM, then SIGKILL after the grace. The number that were running.

    The caller holds the home. The spec stays: an agent that runs again starts them again.
    """
    books = Book(settings.home.replicas), Book(settings.home.asleep, by_marker)
    live = [record for book in books for record in book if _is_running(record)]
    for record in live:
        if record.process:
            processes.signal_leader(record.process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(_is_running(record) for record in live) and time.monotonic() < deadline:
        time.sleep(0.1)
    while strays := processes.marked(config.instance):
        processes.kill([stray.pid for stray in strays])
        time.sleep(0.05)
    for book in books:
        book.clear()
    Sockets(settings.home.path, config.instance).sweep(())
    return len(live)


def _is_running(record: Record) -> bool:
    return record.replica.phase != Phase.EXITED and record.process is not None and processes.is_alive(record.process)
