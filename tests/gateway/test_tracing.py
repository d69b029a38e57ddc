"""A request's trace, from the client's header to the engines', as a collector receives it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from controlplane.gateway.metrics import Metrics
from controlplane.gateway.records import Recorder
from controlplane.gateway.run import tracer_from
from controlplane.gateway.spans import parent_of
from controlplane.gateway.traced import TracedGateway
from controlplane.gateway.tracing import Tracer
from tests.expositions import a_trip
from tests.gateway.collector import ENDPOINT, Collector
from tests.gateway.conftest import MakeSite, Site

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def traced(make_site: MakeSite, tracer: Tracer, **engines: Any) -> Site:
    return await make_site(kind=partial(TracedGateway, tracer), **engines)


async def told(site: Site, tracer: Tracer, collector: Collector) -> dict[str, list[Span]]:
    """The spans of what was recorded, by name."""
    await site.recorded()
    tracer.export(site.trips())
    await asyncio.to_thread(tracer.stop)
    found: dict[str, list[Span]] = {}
    for span in collector.spans():
        found.setdefault(span.name, []).append(span)
    return found


def facts(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


async def test_a_stream_is_traced_from_the_client_to_both_engines(make_site: MakeSite, collector: Collector) -> None:
    tracer = Tracer("gw:8001")
    site = await traced(make_site, tracer)
    site.client.headers.update({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"})
    assert (await site.chat(stream=True)).status_code == 200

    found = await told(site, tracer, collector)

    (request,), (prefill,), (decode,) = found.pop("chat tiny"), found.pop("prefill"), found.pop("decode")
    assert not found
    assert {span.trace_id.hex() for span in (request, prefill, decode)} == {TRACE}
    assert (request.parent_span_id.hex(), request.kind) == (SPAN, Span.SPAN_KIND_SERVER)
    assert {prefill.parent_span_id, decode.parent_span_id} == {request.span_id}
    seen = [standin.served[-1].headers for standin in (site.prefill[0], site.decode[0])]
    assert [one["traceparent"] for one in seen] == [f"00-{TRACE}-{span.span_id.hex()}-01" for span in (prefill, decode)]
    assert [one["tracestate"] for one in seen] == ["vendor=1", "vendor=1"]
    assert (
        request.start_time_unix_nano
        <= prefill.start_time_unix_nano
        <= prefill.end_time_unix_nano
        <= decode.start_time_unix_nano
        <= decode.end_time_unix_nano
        <= request.end_time_unix_nano
    )
    trip, of = site.trips()[0], facts(request)
    assert (of["gen_ai.request.model"], of["http.response.status_code"]) == ("tiny", 200)
    assert (of["gen_ai.usage.input_tokens"], of["gen_ai.usage.output_tokens"]) == (trip.prompt_tokens, 4)
    assert of["gen_ai.latency.time_to_first_token"] == pytest.approx(trip.ttft_ms / 1e3)
    assert (of["forebay.prefill"], of["forebay.decode"]) == ("node/prefill0", "node/decode0")
    assert (of["forebay.path"], of["forebay.retries"], of["forebay.outcome"]) == ("two_step", 0, "ok")
    assert facts(decode)["gen_ai.usage.output_tokens"] == 4
    (resource,) = {pair.value.string_value for pair in collector.requests[0].resource_spans[0].resource.attributes
                   if pair.key == "service.name"}  # fmt: skip
    assert resource == "forebay-gateway"


async def test_an_attempt_that_failed_has_a_span_of_its_own(make_site: MakeSite, collector: Collector) -> None:
    tracer = Tracer("gw:8001")
    site = await traced(make_site, tracer, prefill=2)
    bad = site.prefill[0]
    bad.act.status = 500
    for turn in range(50):  # which engine is asked first is up to the prompt
        assert (await site.complete(prompt=f"Turn {turn}")).status_code == 200
        if bad.served:
            break
    tracer.export(site.trips()[-1:])
    await asyncio.to_thread(tracer.stop)

    steps = sorted((span for span in collector.spans() if span.name != "text_completion tiny"), key=_start)
    assert [(span.name, facts(span)["forebay.attempt"]) for span in steps] == [
        ("prefill", 1), ("prefill", 2), ("decode", 2),
    ]  # fmt: skip
    assert [span.status.code for span in steps] == [Status.STATUS_CODE_ERROR, 0, 0]
    assert "gen_ai.usage.input_tokens" not in facts(steps[0])
    (request,) = (span for span in collector.spans() if span.name == "text_completion tiny")
    assert (facts(request)["forebay.retries"], request.status.code, request.parent_span_id) == (1, 0, b"")


async def test_what_the_client_does_not_sample_is_handed_on_and_not_exported(
    make_site: MakeSite, collector: Collector
) -> None:
    tracer = Tracer("gw:8001")
    site = await traced(make_site, tracer)
    site.client.headers["traceparent"] = f"00-{TRACE}-{SPAN}-00"
    await site.complete()

    assert await told(site, tracer, collector) == {}
    passed = site.decode[0].served[-1].headers["traceparent"]
    assert passed.startswith(f"00-{TRACE}-") and passed.endswith("-00")


async def test_without_a_collector_engines_get_no_trace_header(make_site: MakeSite) -> None:
    site = await make_site()
    site.client.headers["traceparent"] = f"00-{TRACE}-{SPAN}-01"
    await site.complete()

    assert "traceparent" not in site.decode[0].served[-1].headers
    assert (await site.recorded()).trace is None


def test_traces_are_off_unless_somebody_says_where_they_go(collector: Collector) -> None:
    assert tracer_from({}, "gw") is None
    assert tracer_from({ENDPOINT: collector.url, "OTEL_SDK_DISABLED": "true"}, "gw") is None
    tracer = tracer_from({ENDPOINT: collector.url}, "gw")
    assert tracer is not None
    tracer.stop()


def test_the_thread_of_the_records_hands_requests_to_the_tracer() -> None:
    heard: list[Any] = []
    recorder = Recorder(Metrics(), trace=heard.extend)
    trip = a_trip()
    recorder.add(trip)
    recorder._gather()
    assert heard == [trip]


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-says", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}-01\r\nhost: elsewhere", False),
        ("", False),
    ],
)
def test_only_a_lawful_traceparent_counts(header: str, good: bool) -> None:
    assert (parent_of(header) is not None) == good


def _start(span: Span) -> int:
    return span.start_time_unix_nano
