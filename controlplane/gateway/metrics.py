"""Prometheus metrics of one gateway process. Fed from the records, off the path of requests. Where vLLM or Dynamo have
a word for the same thing, the name has it too; docs/metrics.md lists them."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from controlplane.gateway.trip import Trip
from controlplane.settings import VERSION

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAKING_S = (0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)
BETWEEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """Labels are names of deployments and our own words; nothing a client sends becomes a label."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        name = "forebay_gateway_"
        served = ["deployment"]
        Info("forebay_gateway_build", "The version that this process runs", registry=own).info({"version": VERSION})
        self.requests = Counter(
            name + "requests", "Requests that ended", ["deployment", "kind", "path", "outcome"], registry=own
        )
        self.unauthorized = Counter(name + "unauthorized", "Requests without a valid key", registry=own)
        self.retries = Counter(name + "retries", "Attempts beyond a request's first", served, registry=own)
        self.continued = Counter(
            name + "streams_continued", "Times that a stream went on on another engine", served, registry=own
        )
        self.kv_late = Counter(name + "kv_late", "Prefills done again past the KV deadline", served, registry=own)
        self.prompt = Counter(name + "prompt_tokens", "Prompt tokens taken in", served, registry=own)
        self.generation = Counter(name + "generation_tokens", "Tokens generated", served, registry=own)

        def seconds(of: str, text: str, buckets: tuple[float, ...] = LATENCY_S) -> Histogram:
            return Histogram(name + of + "_seconds", text, served, buckets=buckets, registry=own)

        self.ttft = seconds("time_to_first_token", "Time from a request's arrival to its first token")
        self.itl = seconds("inter_token_latency", "A request's mean time between tokens", BETWEEN_S)
        self.prefill = seconds("prefill_time", "Time of the prefill step")
        self.transfer = seconds("kv_transfer_time", "Time from the prefill's answer to the first token")
        self.duration = seconds("request_duration", "Time from a request's arrival to its end")
        self.queue = seconds("queue_time", "Time that requests waited for room at an engine, of those that had to")
        self.queued = Gauge(name + "queued_requests", "Requests that wait for room at an engine", served, registry=own)
        self.wake = seconds("wake_time", "Time waited for a model to be woken, of the requests that had to", WAKING_S)
        self.waking = Gauge(
            name + "waking_requests", "Requests that wait for their model to be woken", served, registry=own
        )
        self.in_flight = Gauge(name + "inflight_requests", "Requests in flight", registry=own)
        self.unwritten = Gauge(name + "records_unwritten", "Records of requests that wait to be written", registry=own)
        self.dropped = Counter(name + "records_dropped", "Records of requests that were given up", registry=own)
        self.verifications = Counter(
            name + "verifications", "The gateway's own requests to new engines", ["deployment", "outcome"], registry=own
        )
        self.held = Gauge(name + "engines_held", "Ready engines that are not used until they answered", registry=own)
        self.table_age = Gauge(name + "table_age_seconds", "Age of the routing table", registry=own)

    def observe(self, trips: Iterable[Trip]) -> None:
        """Counters are summed up first: looking up a label costs more than counting."""
        ended: Count[tuple[str, ...]] = Count()
        sums: dict[Counter, Count[str]] = {
            counter: Count() for counter in (self.retries, self.continued, self.kv_late, self.prompt, self.generation)
        }
        for trip in trips:
            name = trip.deployment
            ended[name, trip.kind, trip.path, trip.outcome] += 1
            if name:
                sums[self.retries][name] += max(0, trip.attempts - 1 - trip.continued)
                sums[self.continued][name] += trip.continued
                sums[self.kv_late][name] += trip.kv_late
                sums[self.prompt][name] += trip.prompt_tokens or 0
                sums[self.generation][name] += trip.completion_tokens or 0
                self._times(name, trip)
        for labels, count in ended.items():
            self.requests.labels(*labels).inc(count)
        for counter, by_name in sums.items():
            for name, count in by_name.items():
                counter.labels(name).inc(count)

    def _times(self, name: str, trip: Trip) -> None:
        times = (
            (self.ttft, trip.ttft_ms),
            (self.itl, trip.itl_ms),
            (self.prefill, trip.prefill_ms),
            (self.transfer, trip.transfer_ms),
            (self.duration, trip.total_ms),
        )
        for histogram, ms in times:
            if ms is not None:
                histogram.labels(name).observe(ms / 1e3)
        if trip.queued_s:
            self.queue.labels(name).observe(trip.queued_s)
        if trip.held_s:
            self.wake.labels(name).observe(trip.held_s)

    def text(self) -> bytes:
        return generate_latest(self.registry)
