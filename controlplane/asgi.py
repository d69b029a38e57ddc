"""HTTP and websocket entry of the web process, and the work it does beside answering."""
# ruff: noqa: E402 - most imports need Django set up

from __future__ import annotations

import os
import warnings

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
# WhiteNoise hands out files as plain iterators. Django reads one whole on a thread; they are a few hundred kB at most.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
django.setup(set_prefix=False)

from channels.routing import ProtocolTypeRouter, URLRouter

from controlplane.api.door import Door
from controlplane.body_limit import BodyLimit
from controlplane.fleet import reports
from controlplane.fleet.heard import Keeper
from controlplane.gateway.summary import recent_summary
from controlplane.lanes import Lanes, OneHop
from controlplane.telemetry import process_figures, process_log
from controlplane.telemetry.hub import Hub
from controlplane.telemetry.lifespan import Lifespan
from controlplane.telemetry.recorder import Recorder
from controlplane.telemetry.services import ingest, outbox
from controlplane.telemetry.sockets import BearerOrSession, routes
from controlplane.wire import DOOR

hub = Hub(summary=recent_summary)
recorder = Recorder(ingest)
lanes = Lanes(OneHop())
door = Door(BodyLimit(lanes))
process_figures.look_at(
    watchers=lambda: hub.watching,
    backlog=lambda: recorder.waiting,
    waiting=lambda: door.waiting,
    period_s=door.wanted_s,
)

threads = [Keeper(reports.note_written), outbox, recorder, lanes]
application = ProtocolTypeRouter(
    {
        "http": door,
        "websocket": BearerOrSession(URLRouter(routes(hub))),
        "lifespan": Lifespan(threads, hub, lambda: process_log.begin("web"), {DOOR: door}),
    }
)
