"""Asks the control plane's rows to wake models, in a thread of its own: neither requests nor records wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from django.db import close_old_connections, connection

from controlplane.fleet.services import waking
from controlplane.fleet.services.waking import Standing
from controlplane.teams import floors


class Waker:
    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-waking")

    async def wake(self, held: Mapping[str, int]) -> Mapping[str, Standing]:
        """By deployment: how far it is. Raises what the database raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, _wake, dict(held))

    def stop(self) -> None:
        self._thread.submit(connection.close)
        self._thread.shutdown(wait=False)


def _wake(held: dict[str, int]) -> Mapping[str, Standing]:
    close_old_connections()
    return waking.wake({name: waking.Ask(waiters) for name, waiters in held.items()}, floors=floors.read())
