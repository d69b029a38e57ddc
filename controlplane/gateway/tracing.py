"""Spans of requests for OpenTelemetry, made of the records once requests are over, off their path. Needs the extra
`otel`; where to send them, how many, and under what name is said by OpenTelemetry's own environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from controlplane.gateway.openai import Kind
from controlplane.gateway.spans import DECODE, PREFILL, Parent, Step, Trace, new_id, parent_of, state_of
from controlplane.gateway.trip import Outcome, Trip
from controlplane.settings import VERSION

QUEUE = "16384"  # spans that wait to be sent: they come a second's worth at once
OPERATIONS = {Kind.CHAT.value: "chat", Kind.COMPLETION.value: "text_completion"}
SCOPE = InstrumentationScope("forebay.gateway", VERSION)
Attributes = dict[str, str | int | float | bool]


class Tracer:
    """`begin` is called on the event loop, `export` by the thread of the records."""

    def __init__(self, instance: str, environ: Mapping[str, str] = os.environ) -> None:
        self._resource = Resource.create(
            {
                "service.name": environ.get("OTEL_SERVICE_NAME", "forebay-gateway"),
                "service.version": VERSION,
                "service.instance.id": instance,
            }
        )
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        queue = int(environ.get("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE))
        self._processor = BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=queue)

    def begin(self, headers: Mapping[str, str]) -> Trace:
        """The client's trace, or a new one."""
        parent = parent_of(headers.get("traceparent", ""))
        trace_id = parent.trace_id if parent else new_id(16)
        sampled = self._sampler.should_sample(_context(parent), trace_id, "request").decision.is_sampled()
        if parent is None:
            return Trace(trace_id, 0, sampled)
        return Trace(trace_id, parent.span_id, sampled, state_of(headers.get("tracestate", "")))

    def export(self, trips: Iterable[Trip]) -> None:
        for trip in trips:
            if trip.trace is not None and trip.trace.sampled:
                for span in spans(trip, trip.trace, self._resource):
                    self._processor.on_end(span)

    def stop(self) -> None:
        """Send what is left."""
        self._processor.shutdown()


def spans(trip: Trip, trace: Trace, resource: Resource) -> Iterator[ReadableSpan]:
    """The request's, and one for each step at an engine."""
    own = _span_context(trace, trace.span_id)
    parent = _span_context(trace, trace.parent_id, is_remote=True) if trace.parent_id else None
    failed = trip.outcome == Outcome.ERROR
    yield ReadableSpan(
        name=f"{OPERATIONS[trip.kind]} {trip.deployment}".strip(),
        context=own,
        parent=parent,
        resource=resource,
        attributes=_of_request(trip),
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR, trip.error) if failed else Status(),
        start_time=_ns(trip, trip.began),
        end_time=_ns(trip, trip.ended),
        instrumentation_scope=SCOPE,
    )
    last = {step.name: step for step in trace.steps}
    for step in trace.steps:
        yield ReadableSpan(
            name=step.name,
            context=_span_context(trace, step.span_id),
            parent=own,
            resource=resource,
            attributes=_of_step(trip, step, is_last=last[step.name] is step),
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR, step.error) if step.error else Status(),
            start_time=_ns(trip, step.began),
            end_time=_ns(trip, step.ended or trip.ended),
            instrumentation_scope=SCOPE,
        )


def _of_request(trip: Trip) -> Attributes:
    """The names of OpenTelemetry's conventions for generative AI and vLLM's where there is one, and else our own."""
    return _known(
        {
            "http.request.method": "POST",
            "http.response.status_code": trip.status,
            "gen_ai.operation.name": OPERATIONS[trip.kind],
            "gen_ai.request.model": trip.deployment or None,
            "gen_ai.usage.input_tokens": trip.prompt_tokens,
            "gen_ai.usage.output_tokens": trip.completion_tokens,
            "gen_ai.latency.time_to_first_token": None if trip.ttft_ms is None else trip.ttft_ms / 1e3,
            "forebay.request_id": trip.id,
            "forebay.outcome": str(trip.outcome),
            "forebay.path": str(trip.path) or None,
            "forebay.prefill": trip.prefill or None,
            "forebay.decode": trip.decode or None,
            "forebay.streamed": trip.streamed,
            "forebay.retries": max(0, trip.attempts - 1 - trip.continued),
            "forebay.continued": trip.continued,
            "forebay.kv_late": trip.kv_late,
            "forebay.queued_s": trip.queued_s,
        }
    )


def _of_step(trip: Trip, step: Step, *, is_last: bool) -> Attributes:
    tokens = {PREFILL: "input", DECODE: "output"}[step.name]
    count = trip.prompt_tokens if step.name == PREFILL else trip.completion_tokens
    first = trip.first - step.began if step.name == DECODE and is_last and not trip.continued and trip.first else None
    return _known(
        {
            "gen_ai.request.model": trip.deployment,
            "forebay.engine": step.engine,
            "forebay.attempt": step.attempt,
            # What is known of tokens is known of the attempt that was answered.
            f"gen_ai.usage.{tokens}_tokens": count if is_last and not step.error and not trip.continued else None,
            "forebay.first_token_s": first,
        }
    )


def _known(attributes: Mapping[str, str | int | float | bool | None]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _span_context(trace: Trace, span_id: int, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace.trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED))


def _context(parent: Parent | None) -> Context | None:
    if parent is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, True, flags)))


def _ns(trip: Trip, at: float) -> int:
    """Unix nanoseconds of a moment of the event loop's clock."""
    return int((trip.at + at - trip.began) * 1e9)
