"""The rules that there are: what each watches, in which unit, and the limits it has until an admin changes them."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.alerting import Limits, Severity
from controlplane.domain.health import CRASH_LOOP_AFTER

GIB = 1024**3
SLO_BUDGET = 0.05  # the share of requests that may miss a latency target
SLO_SHORT_S = 300.0
SLO_LONG_S = 3600.0
SLO_LEAST = 10  # requests in a window before anything is said of it
KV_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A rule before anybody edits it. `fixed`: its threshold is its meaning, not a matter of taste. `ease`: by which
    factor of the threshold a value must be better before what fires is well."""

    key: str
    title: str
    text: str
    subject: str  # what it is about: node, gpu, partition, deployment, gateway, brake, pool, team
    threshold: float
    unit: str
    severity: Severity
    for_s: float
    clear_s: float = 30.0
    above: bool = True
    ease: float = 1.0
    fixed: bool = False

    def limits(self, threshold: float, for_s: float) -> Limits:
        return Limits(threshold, threshold * self.ease, self.above, for_s, self.clear_s)


KINDS: dict[str, Kind] = {
    kind.key: kind
    for kind in (
        Kind("node-silent", "Node silent", "No report came from the node for so long.",
             "node", 30, "s", Severity.CRITICAL, 0, clear_s=20),
        Kind("gpu-lost", "GPU lost", "The driver has lost the GPU, or the node reports it no longer.",
             "gpu", 1, "", Severity.CRITICAL, 10, fixed=True),
        Kind("gpu-ecc", "GPU memory errors", "Uncorrectable memory errors of the GPU since its driver was loaded.",
             "gpu", 1, "errors", Severity.CRITICAL, 0),
        Kind("gpu-throttling", "GPU throttling", "The GPU holds its clocks down for heat or power.",
             "gpu", 1, "", Severity.WARNING, 60, fixed=True),
        Kind("gpu-hot", "GPU hot", "The GPU's temperature.",
             "gpu", 87, "°C", Severity.WARNING, 60, ease=0.95),
        Kind("gpu-foreign", "GPU held by a foreign process", "A process that is not the agent's is on the GPU.",
             "gpu", 1, "", Severity.WARNING, 30, fixed=True),
        Kind("engine-crash-looping", "Engine crash-looping", "So many starts in a row did not stay up.",
             "partition", CRASH_LOOP_AFTER, "starts", Severity.CRITICAL, 0),
        Kind("slo-ttft", "TTFT budget burning",
             "Requests miss the time to first token of their deployment this many times faster than the 5% that may, "
             "over 5 minutes and over an hour.",
             "deployment", 6, "times", Severity.CRITICAL, 60, clear_s=120, ease=0.5),
        Kind("slo-itl", "ITL budget burning",
             "Requests miss the inter-token latency of their deployment this many times faster than the 5% that may, "
             "over 5 minutes and over an hour.",
             "deployment", 6, "times", Severity.CRITICAL, 60, clear_s=120, ease=0.5),
        Kind("kv-full", "KV cache nearly full", "The share of an engine's KV cache that is in use.",
             "partition", 0.95, "", Severity.WARNING, 120, ease=0.95),
        Kind("kv-transfers", "KV transfers failing", "Transfers that failed or expired in the last 5 minutes.",
             "partition", 1, "events", Severity.WARNING, 0, clear_s=60),
        Kind("pool-short", "Pool reservation short",
             "Slots that the forecast and the policy ask to be held, and that the pool has not.",
             "pool", 1, "slots", Severity.WARNING, 120),
        Kind("pool-waiting", "Model waits for a slot",
             "How long a model that is asked for has been waiting for a slot of the pool.",
             "deployment", 30, "s", Severity.WARNING, 0),
        Kind("activation-failing", "Model cannot be woken",
             "So many starts of a pooled model failed in a row within the last hour.",
             "deployment", 2, "starts", Severity.CRITICAL, 0, clear_s=0),
        Kind("disk-low", "Disk for models low", "Bytes free on the node where the models lie.",
             "node", 50 * GIB, "bytes", Severity.WARNING, 60, above=False, ease=1.1),
        Kind("agent-version", "Agent version drifts", "The agent is of another version than the control plane.",
             "node", 1, "", Severity.INFO, 600, fixed=True),
        Kind("clock-skew", "Clock skewed", "The node's clock and the control plane's differ.",
             "node", 5, "s", Severity.WARNING, 30, ease=0.6),
        Kind("gateway-gone", "Gateway gone", "A gateway that did not say goodbye has not been heard for so long.",
             "gateway", 15, "s", Severity.CRITICAL, 0, clear_s=10),
        Kind("brake-on", "Brake on", "Many nodes fell silent at once: nothing is rescheduled by itself.",
             "brake", 1, "", Severity.CRITICAL, 0, clear_s=10, fixed=True),
        Kind("budget-soft", "Budget nearly used up", "A team's month has come to its soft limit.",
             "team", 1, "", Severity.WARNING, 0, fixed=True),
        Kind("budget-hard", "Budget used up", "A team's month has come to its hard limit: its keys are refused.",
             "team", 1, "", Severity.CRITICAL, 0, fixed=True),
    )
}  # fmt: skip
