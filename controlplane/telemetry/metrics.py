"""What can be drawn over time, and how it adds up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """`over`: its value is `field` per `over`. `flows`: many of it add up, where others have a mean. `latency`: the
    histogram's name; a field beside it is the mean that rows without the histogram hold."""

    unit: str
    field: str = ""
    over: str = ""
    flows: bool = False
    latency: str = ""
    of_gpus: bool = False
    scale: float = 1.0

    @property
    def weight(self) -> str:
        """The column that tells how much of a row's time its figure stands for."""
        return "covered_s" if self.field.endswith(("_ps", "_tps")) else "reports"


METRICS = {
    "utilization": Metric("ratio", "utilization", of_gpus=True),
    "memory": Metric("bytes", "memory_used_bytes", of_gpus=True, flows=True),
    "power": Metric("W", "power_w", of_gpus=True, flows=True),
    "temperature": Metric("°C", "temperature_c", of_gpus=True),
    "kv_usage": Metric("ratio", "kv_usage"),
    "generation_tps": Metric("tokens/s", "generation_tps", flows=True),
    "prompt_tps": Metric("tokens/s", "prompt_tps", flows=True),
    "kv_in_tps": Metric("tokens/s", "kv_in_tps", flows=True),
    "computed_tps": Metric("tokens/s", "computed_tps", flows=True),
    "running": Metric("requests", "running", flows=True),
    "waiting": Metric("requests", "waiting", flows=True),
    "requests_ps": Metric("requests/s", "requests_ps", flows=True),
    "preemptions_ps": Metric("1/s", "preemptions_ps", flows=True),
    "prefix_hits": Metric("ratio", "prefix_hits_ps", over="prefix_queries_ps"),
    "external_prefix_hits": Metric("ratio", "external_hits_ps", over="external_queries_ps"),
    "kv_bytes_ps": Metric("bytes/s", "kv_bytes_ps", flows=True),
    "kv_transfers_ps": Metric("1/s", "kv_transfers_ps", flows=True),
    "kv_transfer_ms": Metric("ms", "kv_transfer_s_ps", over="kv_transfers_ps", scale=1000.0),
    "kv_failures_ps": Metric("1/s", "kv_failures_ps", flows=True),
    "kv_expired_ps": Metric("1/s", "kv_expired_ps", flows=True),
    "ttft_ms": Metric("ms", "ttft_ms", latency="ttft"),
    "itl_ms": Metric("ms", "itl_ms", latency="itl"),
    "tpot_ms": Metric("ms", latency="tpot"),
    "e2e_ms": Metric("ms", latency="e2e"),
    "queue_ms": Metric("ms", latency="queue"),
    "prefill_ms": Metric("ms", latency="prefill"),
    "decode_ms": Metric("ms", latency="decode"),
}
LATENCIES = tuple(name for name, metric in METRICS.items() if metric.latency)
