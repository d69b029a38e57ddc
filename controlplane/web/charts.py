"""Which charts a page shows. What they draw comes over REST; `metrics` and `ask` are words of GET /api/v1/samples."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from controlplane.fleet.models import Deployment

NO_ENGINE = "No engine ran here in this range. Assign a partition to see it."
NO_ENGINE_AT_ALL = "No engine reported in this range. Assign a partition to a deployment to see it."
NO_REPORT = "No samples in this range: no node reported then."
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
    slo: int | None = None
    empty: str = "No samples in this range: the node did not report then."


NO_TRAFFIC = "No request ended in this range, or nothing ran that counts them."
NO_TRANSFER = "No engine reported KV transfers in this range: they happen between prefill and decode engines."
PERCENTILES = "quantile=0.5,0.95"

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


def of_fleet() -> tuple[Chart, ...]:
    """An objective is drawn where all deployments have the same one."""
    ttft, itl = (_common(name) for name in ("slo_ttft_ms", "slo_itl_ms"))
    return _whole(ttft, itl, NO_REPORT)


def of_model() -> tuple[Chart, ...]:
    return _whole(None, None, "No GPU that serves it now reported in this range.")


def of_deployment(deployment: Deployment, roles: Collection[str]) -> tuple[Chart, ...]:
    """Those of each role that it has engines of, or may have: what each is limited by, beside its objective."""
    ttft, itl = deployment.slo_ttft_ms, deployment.slo_itl_ms
    found: list[Chart] = []
    if not roles or "prefill" in roles:
        found += [
            Chart("Prefill: tokens in", "tok/s", ("prompt_tps",), role="prefill", empty=_none("prefill")),
            Chart("Prefill: requests waiting", "requests", ("waiting",), role="prefill", empty=_none("prefill")),
            Chart("Prefill: TTFT, mean", "ms", ("ttft_ms",), role="prefill", slo=ttft, empty=NO_TRAFFIC),
        ]
    if not roles or "decode" in roles:
        found += [
            Chart("Decode: tokens out", "tok/s", ("generation_tps",), role="decode", empty=_none("decode")),
            Chart("Decode: KV cache in use", "%", ("kv_usage",), role="decode", empty=_none("decode")),
            Chart("Decode: ITL, mean", "ms", ("itl_ms",), role="decode", slo=itl, empty=NO_TRAFFIC),
            Chart("KV transfer", "MB/s", ("kv_bytes_ps",), shape="sum", empty=NO_TRANSFER),
            Chart("KV transfer, mean time", "ms", ("kv_transfer_ms",), role="decode", empty=NO_TRANSFER),
        ]
    if "aggregated" in roles:
        found += [
            Chart("Aggregated: tokens out", "tok/s", ("generation_tps",), role="aggregated", empty=_none("aggregated")),
            Chart("Aggregated: KV cache in use", "%", ("kv_usage",), role="aggregated", empty=_none("aggregated")),
            Chart("Aggregated: TTFT, mean", "ms", ("ttft_ms",), role="aggregated", slo=ttft, empty=NO_TRAFFIC),
            Chart("Aggregated: ITL, mean", "ms", ("itl_ms",), role="aggregated", slo=itl, empty=NO_TRAFFIC),
        ]
    return tuple(found)


def _whole(ttft: int | None, itl: int | None, no_gpu: str) -> tuple[Chart, ...]:
    together = {"shape": "sum", "ask": "shape=total", "empty": NO_ENGINE_AT_ALL}
    return (
        Chart("GPU utilization", "%", ("utilization",), shape="band", ask="shape=band", empty=no_gpu),
        Chart("Tokens in and out", "tok/s", ("prompt_tps", "generation_tps"), **together),
        Chart("Requests", "running, waiting", ("running", "waiting"), **together),
        Chart("TTFT at engines", "ms", ("ttft_ms",), ask=PERCENTILES, slo=ttft, empty=NO_TRAFFIC),
        Chart("ITL at engines", "ms", ("itl_ms",), ask=PERCENTILES, slo=itl, empty=NO_TRAFFIC),
    )


def _common(objective: str) -> int | None:
    wanted = Deployment.objects.exclude(**{objective: None}).order_by().values_list(objective, flat=True).distinct()[:2]
    return wanted[0] if len(wanted) == 1 else None


def _none(role: str) -> str:
    return f"No {role} engine reported in this range."
