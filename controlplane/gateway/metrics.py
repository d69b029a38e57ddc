"""Prometheus metrics of one gateway process. Fed from the records, off the path of requests."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from controlplane.gateway.trip import Trip

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BETWEEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """Labels are names of deployments and our own words; nothing a client sends becomes a label."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        name = "forebay_gateway_"
        served = ["deployment"]
        self.requests = Counter(
            name + "requests", "Requests ended", ["deployment", "kind", "path", "outcome"], registry=own
        )
        self.unauthorized = Counter(name + "unauthorized", "Requests without a valid key", registry=own)
        self.retries = Counter(name + "retries", "Attempts beyond the first", served, registry=own)
        self.continued = Counter(
            name + "streams_continued", "Streams that went on on another engine", served, registry=own
        )
        self.kv_late = Counter(name + "kv_late", "Prefills redone past the KV deadline", served, registry=own)
        self.prompt = Counter(name + "prompt_tokens", "Prompt tokens", served, registry=own)
        self.completion = Counter(name + "completion_tokens", "Tokens generated", served, registry=own)
        self.ttft = Histogram(name + "ttft_seconds", "Time to first token", served, buckets=LATENCY_S, registry=own)
        self.itl = Histogram(name + "itl_seconds", "Mean time between tokens", served, buckets=BETWEEN_S, registry=own)
        self.prefill = Histogram(name + "prefill_seconds", "Prefill step", served, buckets=LATENCY_S, registry=own)
        self.queue = Histogram(
            name + "queue_seconds", "Wait for room at an engine", served, buckets=LATENCY_S, registry=own
        )
        self.queued = Gauge(name + "queued", "Requests that wait for room at an engine", served, registry=own)
        self.in_flight = Gauge(name + "in_flight", "Requests in flight", registry=own)
        self.dropped = Gauge(name + "records_dropped", "Records that could not be written", registry=own)
        self.verifications = Counter(
            name + "verifications", "The gateway's own requests to new engines", ["deployment", "outcome"], registry=own
        )
        self.held = Gauge(name + "engines_held", "Ready engines that are not used until they answered", registry=own)
        self.table_age = Gauge(name + "table_age_seconds", "Age of the routing table", registry=own)

    def observe(self, trips: Iterable[Trip]) -> None:
        """Counters are summed up first: looking up a label costs more than counting."""
        ended: Count[tuple[str, ...]] = Count()
        sums: dict[Counter, Count[str]] = {
            counter: Count() for counter in (self.retries, self.continued, self.kv_late, self.prompt, self.completion)
        }
        for trip in trips:
            name = trip.deployment
            ended[name, trip.kind, trip.path, trip.outcome] += 1
            if name:
                sums[self.retries][name] += max(0, trip.attempts - 1 - trip.continued)
                sums[self.continued][name] += trip.continued
                sums[self.kv_late][name] += trip.kv_late
                sums[self.prompt][name] += trip.prompt_tokens or 0
                sums[self.completion][name] += trip.completion_tokens or 0
                self._times(name, trip)
        for labels, count in ended.items():
            self.requests.labels(*labels).inc(count)
        for counter, by_name in sums.items():
            for name, count in by_name.items():
                counter.labels(name).inc(count)

    def _times(self, name: str, trip: Trip) -> None:
        for histogram, ms in ((self.ttft, trip.ttft_ms), (self.itl, trip.itl_ms), (self.prefill, trip.prefill_ms)):
            if ms is not None:
                histogram.labels(name).observe(ms / 1e3)
        if trip.queued_s:
            self.queue.labels(name).observe(trip.queued_s)

    def text(self) -> bytes:
        return generate_latest(self.registry)
