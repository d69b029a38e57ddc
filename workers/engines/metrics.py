"""Reading what a vLLM engine says of itself in Prometheus' text form."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from workers.contract import EngineSample, Histogram

log = logging.getLogger(__name__)

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
    "external_prefix_hits_total": "external_prefix_cache_hits_total",
    "external_prefix_queries_total": "external_prefix_cache_queries_total",
    "ttft_sum_s": "time_to_first_token_seconds_sum",
    "ttft_count": "time_to_first_token_seconds_count",
    "itl_sum_s": "inter_token_latency_seconds_sum",
    "itl_count": "inter_token_latency_seconds_count",
    "nixl_bytes_total": "nixl_bytes_transferred_sum",
    "nixl_transfer_s_total": "nixl_xfer_time_seconds_sum",
    "nixl_transfers_total": "nixl_xfer_time_seconds_count",
    "nixl_failed_transfers_total": "nixl_num_failed_transfers_total",
    "nixl_failed_notifications_total": "nixl_num_failed_notifications_total",
    "kv_expired_total": "nixl_num_kv_expired_reqs_total",
    "kv_late_notifications_total": "nixl_num_notifications_after_expiry_total",
}
# of prompt_tokens_by_source_total
SOURCES = {
    "external_kv_tokens_total": "external_kv_transfer",
    "computed_tokens_total": "local_compute",
    "cached_tokens_total": "local_cache_hit",
}
HISTOGRAMS = {
    "ttft": "time_to_first_token_seconds",
    "itl": "inter_token_latency_seconds",
    "tpot": "request_time_per_output_token_seconds",
    "e2e": "e2e_request_latency_seconds",
    "queue": "request_queue_time_seconds",
    "prefill": "request_prefill_time_seconds",
    "decode": "request_decode_time_seconds",
}
CACHE = "cache_config_info"  # what it tells is in its labels
BY_SOURCE, SLEEP, AWAKE = "prompt_tokens_by_source_total", "engine_sleep_state", "awake"
PREFIX = "vllm:"
_BUCKETS = {f"{name}_bucket": name for name in HISTOGRAMS.values()}
_SUMS = {f"{name}_sum" for name in HISTOGRAMS.values()}
_WANTED = {*FIELDS.values(), *_BUCKETS, *_SUMS, BY_SOURCE, SLEEP, CACHE}
_LABEL = {
    name: re.compile(rf'(?:^|,)\s*{label}="([^"\\]*)"')
    for names, label in ((_BUCKETS, "le"), ((BY_SOURCE,), "source"), ((SLEEP,), "sleep_state"))
    for name in names
}
_BLOCKS, _BLOCK_SIZE = (re.compile(rf'(?:^|,)\s*{label}="(\d{{1,15}})"') for label in ("num_gpu_blocks", "block_size"))


@dataclass(slots=True)
class _Found:
    """Sums of several lines, as an engine with data parallel ranks has them."""

    plain: dict[str, float] = field(default_factory=dict)
    sources: dict[str, float] = field(default_factory=dict)
    sleep: dict[str, float] = field(default_factory=dict)
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    caches: list[int | None] = field(default_factory=list)  # tokens


def parse(text: str) -> EngineSample:
    """Missing and NaN become None: an engine that does not tell has not said zero."""
    found = _Found()
    for name, label, value in _samples(text):
        _sort_in(found, name, label, value)
    values: dict[str, Any] = {field: _known(found.plain.get(name)) for field, name in FIELDS.items()}
    values |= {field: _known(found.sources.get(source)) for field, source in SOURCES.items()}
    values |= {field: _histogram(found, name) for field, name in HISTOGRAMS.items()}
    failed = [values["nixl_failed_transfers_total"], values["nixl_failed_notifications_total"]]
    known = [failures for failures in failed if failures is not None]
    values["nixl_failures_total"] = sum(known) if known else None
    return EngineSample(**values, kv_tokens=_kv_tokens(found.caches), asleep=_asleep(found.sleep))


def _sort_in(found: _Found, name: str, label: str, value: float) -> None:
    if name == BY_SOURCE:
        _add(found.sources, label, value)
    elif name == SLEEP:
        _add(found.sleep, label, value)
    elif name == CACHE:
        found.caches.append(_cache(label))
    elif name in _BUCKETS:
        _add(found.buckets.setdefault(_BUCKETS[name], {}), _number(label), value)
    else:
        _add(found.plain, name, value)


def _histogram(found: _Found, name: str) -> Histogram | None:
    """The bounds around what was counted; None unless the whole of it is there and makes sense."""
    counts = found.buckets.get(name)
    total = _known(counts.get(math.inf)) if counts else None
    if not counts or total is None or not all(math.isfinite(count) for count in counts.values()):
        return None
    les = sorted(le for le in counts if math.isfinite(le))
    around = [0.0, *(counts[le] for le in les), total]
    kept = [i for i in range(len(les)) if not around[i] == around[i + 1] == around[i + 2]]
    return Histogram(
        tuple(les[i] for i in kept), tuple(around[i + 1] for i in kept), total, _known(found.plain.get(f"{name}_sum"))
    )


def _cache(labels: str) -> int | None:
    blocks, size = _BLOCKS.search(labels), _BLOCK_SIZE.search(labels)
    return int(blocks[1]) * int(size[1]) if blocks and size else None


def _kv_tokens(caches: list[int | None]) -> float | None:
    """Of all ranks; what one of them does not tell is not known of all."""
    told = [tokens for tokens in caches if tokens]
    return float(sum(told)) if told and len(told) == len(caches) else None


def _asleep(states: dict[str, float]) -> bool | None:
    if not states:
        return None
    return not states.get(AWAKE)


def _samples(text: str) -> Iterator[tuple[str, str, float]]:
    """Name, the one label that matters (of CACHE all), value. A line is taken apart by hand: an engine has 700, and the
    client library's parser takes 6 ms for those that are wanted. In a label's value a quote is escaped, so that what
    looks like another label there is not."""
    for line in text.splitlines():
        if not line.startswith(PREFIX):
            continue
        head, brace, rest = line.partition("{")
        name, label = head[len(PREFIX) :], ""
        if brace:
            labels, _, rest = rest.rpartition("}")
        else:
            name, _, rest = name.partition(" ")
            labels = ""
        if name not in _WANTED:
            continue
        if name == CACHE:
            label = labels
        elif (told := _LABEL.get(name)) and (match := told.search(labels)):
            label = match[1]
        try:
            yield name, label, float(rest.split()[0])
        except (ValueError, IndexError):
            log.warning("a line of an engine's metrics cannot be read: %.200s", line)


def _add(sums: dict[Any, float], key: Any, value: float) -> None:
    sums[key] = sums.get(key, 0.0) + value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) or math.isinf(value) else value
