"""Start and end of the web process: the recorder runs in between, and watchers are told when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from controlplane.telemetry.hub import Hub
from controlplane.telemetry.recorder import Recorder


class Lifespan:
    """The ASGI application of scope "lifespan"."""

    def __init__(self, recorder: Recorder, hub: Hub, begin_log: Callable[[], object] = lambda: None) -> None:
        self._recorder = recorder
        self._hub = hub
        self._begin_log = begin_log

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._begin_log()
                self._recorder.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._hub.stop()
                await asyncio.to_thread(self._recorder.stop)
                await send({"type": "lifespan.shutdown.complete"})
                return
