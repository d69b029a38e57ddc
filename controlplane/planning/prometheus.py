"""What was asked of models, from a Prometheus beside a router of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from controlplane.domain.forecast.activity import Requests
from controlplane.planning.bursts import Bursts
from controlplane.planning.history import LEAST_OUTAGE_S
from controlplane.planning.traces import TraceError

MOST_POINTS = 10_000  # of a series an answer; Prometheus refuses more than 11,000
MOST_BYTES = 256 * 2**20  # of an answer
TIMEOUT = httpx.Timeout(120.0, connect=10.0)
LEAST = 0.01  # requests in a step: less is what extrapolation leaves of none


@dataclass(frozen=True, slots=True)
class Wanted:
    """`query` gives the number of requests in each step, by model: a range vector's increase over just a step."""

    url: str
    query: str
    start: float
    end: float
    step_s: float = 60.0
    label: str = "model"
    token: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """`spans`: of which there is a sample of any series, 0 included."""

    requests: Requests
    spans: tuple[tuple[float, float], ...]


def fetch(wanted: Wanted, transport: httpx.BaseTransport | None = None) -> Found:
    """Raises TraceError, whose message names the server and what it said."""
    bursts, moments = Bursts(), set[float]()
    headers = {"Authorization": f"Bearer {wanted.token}"} if wanted.token else {}
    with httpx.Client(headers=headers, timeout=TIMEOUT, transport=transport) as client:
        for start, end in _pieces(wanted):
            for name, at, number in _samples(wanted, _answer(client, wanted, start, end)):
                moments.add(at)
                if number > LEAST:
                    bursts.add(name, at - wanted.step_s, at, max(1, round(number)))
    if not moments:
        raise TraceError(f"{wanted.url}: the query gives no series with the label {wanted.label!r} in this time")
    return Found(bursts.requests(), _spans(sorted(moments), wanted.step_s))


def _pieces(wanted: Wanted) -> Iterator[tuple[float, float]]:
    start, length = wanted.start, wanted.step_s * MOST_POINTS
    while start < wanted.end:
        yield start, min(wanted.end, start + length - wanted.step_s)
        start += length


def _answer(client: httpx.Client, wanted: Wanted, start: float, end: float) -> list[Any]:
    url = f"{wanted.url.rstrip('/')}/api/v1/query_range"
    params = {"query": wanted.query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{wanted.step_s:g}"}
    try:
        with client.stream("GET", url, params=params) as response:
            body = _read(response, url)
            found = httpx.Response(response.status_code, content=body).json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TraceError(f"{url} does not answer: {error or type(error).__name__}") from error
    except ValueError as error:
        raise TraceError(f"{url} answers {response.status_code} and no JSON: is it a Prometheus?") from error
    if not isinstance(found, dict) or found.get("status") != "success":
        said = found.get("error", "") if isinstance(found, dict) else ""
        raise TraceError(f"{url} answers {response.status_code}: {str(said)[:300] or 'no reason'}")
    data = found.get("data")
    if not isinstance(data, dict) or data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
        raise TraceError(f"{url}: the query gives no series over time")
    return data["result"]


def _read(response: httpx.Response, url: str) -> bytes:
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise TraceError(f"{url}: the answer has more than {MOST_BYTES // 2**20} MiB; ask for fewer days")
    return bytes(body)


def _samples(wanted: Wanted, series: list[Any]) -> Iterator[tuple[str, float, float]]:
    """(model, at, requests of the step that ends then); what is no number is left out, as no data is."""
    for one in series:
        try:
            labels, values = dict(one["metric"]), [(float(at), float(value)) for at, value in one["values"]]
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{wanted.url}: a series that is none of Prometheus': {str(one)[:200]}") from error
        if not labels.get(wanted.label):
            raise TraceError(f"{wanted.url}: a series has no label {wanted.label!r}, but {str(labels)[:200]}")
        yield from ((str(labels[wanted.label]), at, number) for at, number in values if math.isfinite(number))


def _spans(moments: list[float], step_s: float) -> tuple[tuple[float, float], ...]:
    spans: list[tuple[float, float]] = []
    for at in moments:
        if spans and at - step_s <= spans[-1][1] + LEAST_OUTAGE_S:
            spans[-1] = spans[-1][0], at
        else:
            spans.append((at - step_s, at))
    return tuple(spans)
