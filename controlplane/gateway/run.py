"""Runs a gateway process: its threads, its server, its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from controlplane.gateway.demand import Use
from controlplane.gateway.limits import Limits
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.probing import Prober
from controlplane.gateway.records import Recorder
from controlplane.gateway.server import Gateway
from controlplane.gateway.table import Table
from controlplane.gateway.telling import Teller
from controlplane.gateway.traced import TracedGateway
from controlplane.gateway.trials import Pace
from controlplane.gateway.waker import Waker
from controlplane.gateway.warming import Warming
from controlplane.gateway.watch import Watch
from controlplane.lanes import keep_connections

if TYPE_CHECKING:
    from controlplane.gateway.tracing import Tracer  # its packages may not be installed

log = structlog.get_logger(__name__)
SWEEP_S = 1.0
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


async def serve(
    host: str, port: int, *, limits: Limits | None = None, ready: asyncio.Future[int] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight end. `ready` gets the port."""
    limits = limits or Limits()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    tracer = tracer_from(os.environ, f"{socket.gethostname()}:{port}")
    watch, recorder = Watch(), Recorder(metrics, trace=tracer.export if tracer else None)
    watch.start()
    recorder.start()
    await asyncio.to_thread(watch.looked.wait, 30.0)
    teller, waker = Teller(lambda: uses(gateway, watch.table)), Waker()
    warming = Warming(Prober(limits.upstream), teller.tell, metrics, Pace())
    follow(watch, warming)
    parts = (lambda: warming.table, recorder, metrics, limits, waker.wake)
    gateway = TracedGateway(tracer, *parts) if tracer else Gateway(*parts)
    watch.hurried = lambda: gateway.hold.is_holding
    teller.hurried, teller.idle_told = lambda: gateway.hold.wants_slot, gateway.hold.ask_soon
    gateway.hold.slot_wanted = teller.look
    protocol = gateway.server()
    listener = await listen(protocol, host, port, limits)
    port = listener.sockets[0].getsockname()[1]
    teller.begin(f"{socket.gethostname()}:{port}", f"{host}:{port}")
    beside = [loop.create_task(_sweep(gateway, watch)), loop.create_task(warming.run())]
    log.info("the gateway listens", host=host, port=port)
    gc.collect()
    gc.freeze()  # what is there now stays: no need to look at it again
    await stop.wait()
    log.info("the gateway shuts down", in_flight=gateway.in_flight)
    await end(gateway, listener, protocol, limits.drain_s)
    for task in beside:
        task.cancel()
    warming.close()
    waker.stop()
    watch.stop()
    await asyncio.to_thread(teller.stop)
    await asyncio.to_thread(recorder.stop)
    if tracer:
        await asyncio.to_thread(tracer.stop)


def uses(gateway: Gateway, table: Table) -> list[Use]:
    """What is new of who has slots of the pool: of pooled ones all requests, of dedicated ones what overflows."""
    return [*pooled(gateway.recorder.demand.uses(), table), *gateway.engines.lent.uses()]


def pooled(uses: Iterable[Use], table: Table) -> list[Use]:
    """Those of deployments that may be made to leave. Others are asked for all the time."""
    return [use for use in uses if (served := table.served.get(use[0])) is not None and served.pooled]


def tracer_from(environ: Mapping[str, str], instance: str) -> Tracer | None:
    """None where nobody says where traces go, or what sends them is not installed: requests are served all the same."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from controlplane.gateway.tracing import Tracer
    except ImportError as error:
        log.error("no traces: install requirements-otel.txt", missing=str(error))
        return None
    return Tracer(instance, environ)


def follow(watch: Watch, warming: Warming) -> None:
    """Put each table that is read into use, beginning with the one that is there."""
    loop = asyncio.get_running_loop()

    def pass_on(table: Table) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(warming.take, table)

    watch.listener = pass_on
    warming.take(watch.table)


async def listen(protocol: web.Server, host: str, port: int, limits: Limits) -> asyncio.Server:
    """Listen, and let the kernel end connections whose peer takes nothing in for too long."""
    listener = await asyncio.get_running_loop().create_server(protocol, host, port, backlog=1024)
    for one in listener.sockets:
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.stall_s * 1000))
    return listener


async def _sweep(gateway: Gateway, watch: Watch) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        table = watch.table
        gateway.engines.sweep(table)
        gateway.buckets.keep({key.id for key in table.keys.values() if key.id is not None})


async def end(gateway: Gateway, listener: asyncio.Server, protocol: web.Server, drain_s: float) -> None:
    """Stop accepting, let what is in flight end, tell who still waits for a model, cut what does not end."""
    gateway.draining = True
    listener.close()
    until = asyncio.get_running_loop().time() + drain_s
    while gateway.in_flight and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.05)
    gateway.hold.close()
    gateway.overflow.close()
    transports = [connection.transport for connection in protocol.connections]
    await protocol.shutdown(0.5)
    for transport in transports:
        if transport is not None:
            transport.abort()  # a closed one would wait until its client has read everything
    gateway.engines.close()


def run(host: str, port: int) -> None:
    import uvloop

    keep_connections()
    # The record thread must not hold the interpreter from the event loop for the default 5 ms.
    sys.setswitchinterval(0.0005)
    uvloop.run(serve(host, port))
