"""Asking a running OpenAI-compatible engine: is it ready, what does it measure. Shared by all engines."""

from __future__ import annotations

import logging

import httpx

from workers.contract import EngineSample, ReplicaSpec
from workers.engines.metrics import parse

log = logging.getLogger(__name__)
HEALTH_S = 2.0
COMPLETION_S = 60.0  # the first token of a large model may compile kernels
MAX_METRICS_BYTES = 8 * 2**20


def is_ready(client: httpx.Client, url: str, spec: ReplicaSpec) -> bool:
    """/health, then one real token: an engine that is healthy may still be unable to serve."""
    try:
        if client.get(f"{url}/health", timeout=HEALTH_S).status_code != httpx.codes.OK:
            return False
        reply = client.post(
            f"{url}/v1/completions",
            json={"model": spec.served_names[0], "prompt": "Hello", "max_tokens": 1, "temperature": 0},
            headers={"Authorization": f"Bearer {spec.api_key}"} if spec.api_key else {},
            timeout=httpx.Timeout(COMPLETION_S, connect=HEALTH_S),
        )
    except httpx.HTTPError:
        return False
    if reply.status_code != httpx.codes.OK:
        log.warning("%s is healthy but answers %d: %.300s", spec.name, reply.status_code, reply.text)
        return False
    return True


def sample(client: httpx.Client, url: str) -> EngineSample | None:
    try:
        reply = client.get(f"{url}/metrics", timeout=HEALTH_S)
    except httpx.HTTPError:
        return None
    if reply.status_code != httpx.codes.OK or len(reply.content) > MAX_METRICS_BYTES:
        return None
    return parse(reply.text)
