"""Asking a running OpenAI-compatible engine: is it ready, what does it measure. Shared by all engines."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from workers.contract import EngineSample, ReplicaSpec

log = logging.getLogger(__name__)
HEALTH_S = 2.0
COMPLETION_S = 60.0  # the first token of a large model may compile kernels
MAX_METRICS_BYTES = 8 * 2**20

# EngineSample field -> sample name without the "vllm:" prefix. Several lines of one name are summed.
FIELDS = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "kv_usage": "kv_cache_usage_perc",
    "prompt_tokens_total": "prompt_tokens_total",
    "generation_tokens_total": "generation_tokens_total",
    "preemptions_total": "num_preemptions_total",
    "requests_total": "request_success_total",
    "prefix_hits_total": "prefix_cache_hits_total",
    "prefix_queries_total": "prefix_cache_queries_total",
    "ttft_sum_s": "time_to_first_token_seconds_sum",
    "ttft_count": "time_to_first_token_seconds_count",
    "itl_sum_s": "inter_token_latency_seconds_sum",
    "itl_count": "inter_token_latency_seconds_count",
    "nixl_bytes_total": "nixl_bytes_transferred_sum",
    "kv_expired_total": "nixl_num_kv_expired_reqs_total",
}
NIXL_FAILURES = ("nixl_num_failed_transfers_total", "nixl_num_failed_notifications_total")
BY_SOURCE = "prompt_tokens_by_source_total"
_WANTED = tuple(f"vllm:{name}" for name in {*FIELDS.values(), *NIXL_FAILURES, BY_SOURCE})


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


def parse(text: str) -> EngineSample:
    """Missing and NaN become None: an engine that does not tell has not said zero."""
    found: dict[str, float] = {}
    by_source: dict[str, float] = {}
    for name, labels, value in _samples(text):
        if name == BY_SOURCE:
            source = labels.get("source", "")
            by_source[source] = by_source.get(source, 0.0) + value
        else:
            found[name] = found.get(name, 0.0) + value
    values: dict[str, Any] = {field: _known(found.get(name)) for field, name in FIELDS.items()}
    failures = [_known(found.get(name)) for name in NIXL_FAILURES]
    return EngineSample(
        **values,
        external_kv_tokens_total=_known(by_source.get("external_kv_transfer")),
        nixl_failures_total=sum(f for f in failures if f is not None) if any(f is not None for f in failures) else None,
    )


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    lines = [line for line in text.splitlines() if line.startswith(_WANTED)]
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for found in family.samples:
                yield found.name.removeprefix("vllm:"), found.labels, found.value
    except ValueError as error:
        log.warning("an engine's metrics cannot be read: %s", error)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) or math.isinf(value) else value
