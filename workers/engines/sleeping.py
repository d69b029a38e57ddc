"""Putting an engine to sleep and waking it, by the calls of vLLM's development mode. Any engine that answers them can.

Looked up in vLLM 0.32 (entrypoints/serve/dev, v1/engine/core, v1/worker/gpu_worker): `POST /sleep?level=&mode=wait`
lets requests end, drops the KV cache, and moves the weights to host memory (1) or drops them (2). `POST /wake_up` maps
everything again. After level 2 the weights' memory holds nothing sensible: it is mapped first, filled by the workers'
`reload_weights`, and only then comes the KV cache and with it the scheduler. Each call may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

CALL_S = 10.0
SLEEP_S, WAKE_S, RELOAD_S = 110.0, 110.0, 280.0
HEADER = "x-forebay-agent"


class SleepError(Exception):
    """The engine did not do as it was told; the message says what it answered."""


def doze(client: httpx.Client, url: str, secret: str, level: int) -> None:
    """Returns once it says that it sleeps. Raises SleepError."""
    _post(client, f"{url}/sleep", secret, SLEEP_S, params={"level": str(level), "mode": "wait"})
    if not is_sleeping(client, url, secret):
        raise SleepError("it was told to sleep, and says that it does not")


def wake(client: httpx.Client, url: str, secret: str, level: int) -> None:
    """Returns once it says that it is awake. Raises SleepError."""
    if level == 2:
        _post(client, f"{url}/wake_up", secret, WAKE_S, params={"tags": "weights"})
        _post(client, f"{url}/collective_rpc", secret, RELOAD_S, json={"method": "reload_weights"})
        _post(client, f"{url}/wake_up", secret, WAKE_S, params={"tags": "kv_cache"})
    else:
        _post(client, f"{url}/wake_up", secret, WAKE_S)
    if is_sleeping(client, url, secret):
        raise SleepError("it was woken, and says that it sleeps")


def is_sleeping(client: httpx.Client, url: str, secret: str) -> bool:
    """Raises SleepError where it does not say."""
    try:
        reply = client.get(f"{url}/is_sleeping", headers={HEADER: secret}, timeout=CALL_S)
        if reply.status_code == httpx.codes.OK:
            return bool(reply.json()["is_sleeping"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise SleepError(f"it does not say whether it sleeps: {error or type(error).__name__}") from error
    raise SleepError(f"/is_sleeping answered {reply.status_code}")


def _post(
    client: httpx.Client,
    url: str,
    secret: str,
    within_s: float,
    *,
    params: Mapping[str, str] | None = None,
    json: object = None,
) -> None:
    timeout = httpx.Timeout(within_s, connect=CALL_S)
    try:
        reply = client.post(url, headers={HEADER: secret}, params=params, json=json, timeout=timeout)
    except httpx.HTTPError as error:
        raise SleepError(f"{url.rpartition('/')[2]}: {error or type(error).__name__}") from error
    if reply.status_code != httpx.codes.OK:
        raise SleepError(f"{url.rpartition('/')[2]} answered {reply.status_code}: {reply.text[:200]}")
