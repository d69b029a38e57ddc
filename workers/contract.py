"""What the control plane and a node say to each other, and nothing else.

Down goes a NodeSpec: everything that should run on the node. Up comes a NodeReport: everything that does
run there. Both are whole snapshots, so losing one costs a period and repeating one costs nothing.
`generation` is one counter per node: it orders specs and tells which spec a replica satisfies.

These are msgspec structs: decoding one from JSON checks every type and bound, so a value of these types has
been validated wherever it is seen.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from workers.qualification import Qualification, QualifyWanted
from workers.sleep import MOST_SLEEPERS, SleepReport
from workers.weights import MOST_FETCHES, FetchReport, FetchWanted, WeightsReport

Text = Annotated[str, Meta(max_length=256)]
Path = Annotated[str, Meta(max_length=4096)]
Secret = Annotated[str, Meta(max_length=512)]
LogText = Annotated[str, Meta(max_length=65536)]
Count = Annotated[int, Meta(ge=0)]


class Role(StrEnum):
    """Which phase of a request an engine serves; AGGREGATED serves both."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


class Phase(StrEnum):
    """STARTING -> READY -> DRAINING -> STOPPING -> EXITED; DRAINING -> DOZING -> ASLEEP -> WAKING -> STARTING; any ->
    EXITED when it dies. DOZING and WAKING are the agent's own: reported as STOPPING and STARTING."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    DOZING = "dozing"
    ASLEEP = "asleep"
    WAKING = "waking"
    EXITED = "exited"


class DeviceKind(StrEnum):
    NVIDIA = "nvidia"
    MIG = "mig"
    CPU = "cpu"
    SIMULATED = "simulated"


# --- down ------------------------------------------------------------------------------------------------


class ReplicaSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One engine that should run. `gpus` are device uuids; `args` are engine arguments the agent does not own."""

    partition: Count
    name: Text  # the partition's name, for file names and people
    deployment: Text
    role: Role
    gpus: tuple[Text, ...]
    model: Path  # folder on the node, or a Hugging Face repository id
    revision: Text = ""
    served_names: tuple[Text, ...]
    engine: Text = "vllm"
    args: tuple[Annotated[str, Meta(max_length=4096)], ...] = ()
    kv_connector: Text = ""  # "" = no KV transfer (aggregated)
    kv_lease_s: Count = 30
    api_key: Secret = ""
    drain_s: Annotated[float, Meta(ge=0)] = 120.0
    generation: Count = 0
    # Started anew, it is to be able to sleep; bytes of its weights on the GPUs, 0: not known. None: it is not to be.
    sleeps: Count | None = None

    def content(self) -> tuple[object, ...]:
        """What the process was started with. Equal content never needs a new process: role, name, drain
        deadline, generation and `sleeps` are not in it: they change what is asked of the engine, not the engine."""
        return (
            self.partition, self.gpus, self.model, self.revision, self.served_names,
            self.engine, self.args, self.kv_connector, self.kv_lease_s, self.api_key,
        )  # fmt: skip


class NodeSpec(Struct, frozen=True, kw_only=True):
    """Everything that should run on `node`. Specs are ordered by `generation`; an older one is dropped.

    `drain_s`: how long an engine that is no longer in it may drain, from the moment it began to; None: as long as its
    own spec said. An agent that does not know the field passes it over, and goes by the engine's own. `qualify`: GPUs
    to be measured while no engine has them. `fetch`: weights to be brought there. `sleepers`: engines that may stay
    asleep in a slot, of which at most the one in `replicas` is awake."""

    node: Count
    generation: Count
    replicas: tuple[ReplicaSpec, ...] = ()
    drain_s: Annotated[float, Meta(ge=0)] | None = None
    qualify: tuple[QualifyWanted, ...] = ()
    fetch: Annotated[tuple[FetchWanted, ...], Meta(max_length=MOST_FETCHES)] = ()
    sleepers: Annotated[tuple[ReplicaSpec, ...], Meta(max_length=MOST_SLEEPERS)] = ()


class LogWanted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody is looking at this partition's engine log, or at the agent's own (`partition` 0, which no partition
    has): send what lies past `offset` (-1: the tail).

    With an `id` it is one piece that is asked for, of at most `limit` bytes, and every chunk of it carries the id:
    `previous` asks for the text that the engine's last process but one left, `ago_s` for what was written in so many
    seconds before now, as much as is known of that. An agent that knows no id sends chunks without one."""

    partition: Count
    offset: int = -1
    id: Text = ""
    limit: Count = 0
    previous: bool = False
    ago_s: Annotated[float, Meta(ge=0)] | None = None


class ReportReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a report. `spec` only when newer than the reported generation. `at`: server clock, unix s.
    `weights`: the list of what the node holds is wanted with the next report."""

    at: float
    spec: NodeSpec | None = None
    logs: tuple[LogWanted, ...] = ()
    period_s: float | None = None  # how often to report from now on (backpressure)
    weights: bool = False


# --- up --------------------------------------------------------------------------------------------------


class Device(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """Facts of one accelerator (or CPU slot) that do not change while it is there."""

    uuid: Text
    index: Count
    kind: DeviceKind
    name: Text
    memory_bytes: Count
    mig_parent: Text = ""  # uuid of the physical GPU, for MIG devices
    pci: Text = ""
    peers: tuple[Text, ...] = ()  # uuids reachable over NVLink


class DeviceSample(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One reading of a device. None means the device does not tell: unknown, never zero."""

    uuid: Text
    utilization: Annotated[float, Meta(ge=0, le=1)] | None = None
    memory_used_bytes: Count | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    ecc_uncorrected: Count | None = None
    throttle: Text = ""  # reasons, comma separated, "" = none known
    health: Text = "ok"  # ok | degraded | lost
    health_detail: Text = ""
    foreign_pids: tuple[int, ...] = ()  # processes on it that are not this agent's


class Histogram(Struct, gc=False, frozen=True, array_like=True):
    """A histogram as an engine counts it since its start. `les`: upper bounds in seconds, ascending; `counts`: how many
    lie at or below each. A bound is left out where the counts just below and above it are its own; +Inf is `count`."""

    les: Annotated[tuple[float, ...], Meta(max_length=128)]
    counts: Annotated[tuple[float, ...], Meta(max_length=128)]
    count: float
    sum: float | None = None


class EngineSample(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """Figures scraped from one engine's /metrics. Counters are running totals of that process. None: the engine does
    not tell, never zero. Histograms come with some reports only: None says nothing of them."""

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None  # 0..1
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    external_kv_tokens_total: float | None = None  # prompt tokens whose KV came by transfer
    preemptions_total: float | None = None
    requests_total: float | None = None
    prefix_hits_total: float | None = None
    prefix_queries_total: float | None = None
    ttft_sum_s: float | None = None
    ttft_count: float | None = None
    itl_sum_s: float | None = None
    itl_count: float | None = None
    nixl_bytes_total: float | None = None
    nixl_failures_total: float | None = None
    kv_expired_total: float | None = None
    external_prefix_hits_total: float | None = None
    external_prefix_queries_total: float | None = None
    computed_tokens_total: float | None = None  # prompt tokens that this engine prefilled itself
    cached_tokens_total: float | None = None  # prompt tokens whose KV lay in its own cache
    nixl_transfer_s_total: float | None = None
    nixl_transfers_total: float | None = None
    nixl_failed_transfers_total: float | None = None
    nixl_failed_notifications_total: float | None = None
    kv_late_notifications_total: float | None = None  # of a pull that came after the KV had expired
    kv_tokens: float | None = None  # that the KV cache holds when it is full
    asleep: bool | None = None
    ttft: Histogram | None = None
    itl: Histogram | None = None
    tpot: Histogram | None = None  # a request's mean time per output token
    e2e: Histogram | None = None
    queue: Histogram | None = None
    prefill: Histogram | None = None
    decode: Histogram | None = None


class Exit(Struct, gc=False, frozen=True, kw_only=True):
    """How a replica's last process ended. `code` is negative for a signal, None when unknown (adopted)."""

    code: int | None
    ago_s: float
    log_tail: LogText = ""


class ReplicaStatus(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One engine process as the agent sees it."""

    partition: Count
    deployment: Text
    role: Role
    generation: Count
    phase: Phase
    phase_age_s: float = 0.0
    pid: int = 0
    endpoint: Text = ""  # http://host:port of its OpenAI server
    restarts: Count = 0  # starts in a row that ended without staying up
    ready_after_s: float | None = None  # measured: start to ready
    woken_after_s: float | None = None  # measured: of its last waking to ready; None: it was started
    memory_bytes: Count | None = None  # of the process tree
    engine_version: Text = ""
    message: Text = ""
    last_exit: Exit | None = None
    sample: EngineSample | None = None


class HostSample(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    cpu_utilization: float | None = None
    cpu_count: Count = 0
    memory_bytes: Count = 0
    memory_used_bytes: Count = 0
    disk_free_bytes: Count | None = None  # where the models lie


class LogChunk(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of one log, redacted by the agent. `offset` is where it starts in the file; `end` where the text that was
    asked for ends at present. The last chunk with an `id` may be empty: there is no more."""

    partition: Count
    offset: Count
    text: LogText
    id: Text = ""
    end: Count | None = None


class NodeReport(Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that runs on the node, with the samples. `at` is the agent's clock (unix s), for skew only:
    reports of one `instance` are ordered by `seq`."""

    node: Count
    instance: Text  # random per agent home: two agents with one identity are told apart by it
    boot: Text = ""  # random per agent process start
    seq: Count
    at: float
    generation: Count  # of the spec the agent holds
    period_s: float = 1.0
    agent_version: Text = ""
    engine_version: Text = ""  # of the vllm program this node would start
    driver: Text = ""  # "NVML 560.35 / CUDA 12.6", or why there is none
    simulated: bool = False
    devices: tuple[Device, ...] = ()
    samples: tuple[DeviceSample, ...] = ()
    host: HostSample | None = None
    replicas: tuple[ReplicaStatus, ...] = ()
    logs: tuple[LogChunk, ...] = ()
    qualifications: tuple[Qualification, ...] = ()  # of those that the spec asks for
    weights_mark: Text = ""  # of the weights that lie on the node; "": it has not looked yet, or does not know how
    weights: WeightsReport | None = None  # all of them, where the control plane does not know them yet
    fetch: FetchReport | None = None  # None: its agent does not know how
    sleep: SleepReport | None = None  # likewise
