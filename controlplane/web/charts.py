"""Which charts a page shows. What they draw comes over REST; `metrics` and `ask` are words of GET /api/v1/samples."""

from __future__ import annotations

from dataclasses import dataclass

NO_ENGINE = "No engine ran here in this range. Assign a partition to see it."
NO_SENSOR = "No device here reported it in this range; CPU slots have no such sensor."


@dataclass(frozen=True, slots=True)
class Chart:
    """`shape`: lines (a band over a dozen), band, heat (a row a series) or sum (of what is known)."""

    title: str
    unit: str
    metrics: tuple[str, ...]
    shape: str = "lines"
    role: str = ""
    ask: str = ""
    slo: float | None = None
    empty: str = "No samples in this range: the node did not report then."


NODE = (
    Chart("GPU utilization, a row a GPU", "%", ("utilization",), shape="heat"),
    Chart("GPU utilization", "%", ("utilization",)),
    Chart("GPU memory", "GiB", ("memory",)),
    Chart("Power", "W", ("power",), empty=NO_SENSOR),
    Chart("Temperature", "°C", ("temperature",), empty=NO_SENSOR),
    Chart("KV cache in use", "%", ("kv_usage",), empty=NO_ENGINE),
    Chart("Requests running and waiting", "requests", ("running", "waiting"), empty=NO_ENGINE),
    Chart("Tokens out", "tok/s", ("generation_tps",), empty=NO_ENGINE),
)
