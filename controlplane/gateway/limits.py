"""What the gateway bounds, in one place. Everything that clients and engines send is bounded by something here."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.conf import settings

from controlplane.gateway.upstream import Bounds


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: int = 10 * 1024 * 1024
    body_s: float = 30.0  # to send it in
    in_flight: int = 2048
    attempts: int = 3
    continuations: int = field(default_factory=lambda: settings.GATEWAY_CONTINUATIONS)  # of one stream
    wait_s: float = field(default_factory=lambda: settings.GATEWAY_WAIT_S)  # for an engine, when there is none just now
    queue_length: int = 256  # requests of one deployment that wait for room at its engines
    queue_s: float = 30.0
    overflow_s: float = field(default_factory=lambda: settings.GATEWAY_OVERFLOW_S)  # waited, before the pool is asked
    hold_s: float = field(default_factory=lambda: settings.GATEWAY_HOLD_S)  # for a pooled model to be woken
    hold_comments_s: float = field(default_factory=lambda: settings.GATEWAY_HOLD_COMMENTS_S)  # between two; 0: none
    hold_each: int = 512  # requests held for one model
    hold_all: int = 1024
    hold_bytes: int = 256 * 1024 * 1024  # of their bodies
    gap_s: float = 120.0  # how long ago there must have been one for that
    kv_deadline_s: float = field(default_factory=lambda: settings.KV_DEADLINE_S)
    prefill_s: float = 120.0
    answer_s: float = 900.0  # a whole, unstreamed answer
    health_s: float = 2.0
    head_s: float = 60.0  # until an engine begins a stream
    first_s: float = 300.0  # until its first event
    silence_s: float = 300.0  # between its events
    stall_s: float = 60.0  # how long a client may leave its stream unread
    stream_rest_s: float = field(default_factory=lambda: settings.GATEWAY_STREAM_REST_MS / 1000)
    drain_s: float = 12.0  # for requests in flight at shutdown
    upstream: Bounds = field(default_factory=Bounds)
