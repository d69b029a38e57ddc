"""vLLM: from a ReplicaSpec to a command line and an environment, on GPUs and on CPU slots."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from workers.contract import DeviceKind, EngineSample, ReplicaSpec, Role
from workers.engines import CannotStart, Command, Launch, openai
from workers.engines.traces import FLAG as TRACES_FLAG
from workers.engines.traces import LACKING as NO_TRACES
from workers.engines.traces import Traces
from workers.engines.vllm_version import VersionOf
from workers.reconcile import lease_s

log = logging.getLogger(__name__)

SHUTDOWN_S = 20  # what SIGTERM leaves for requests in flight; less than reconcile.GRACE_S
CPU_CONTEXT = 2048
CPU_KV_CAP_BYTES = 256 * 2**20
CPU_KV_FLOOR_BYTES = 64 * 2**20
CPU_PLUGIN = Path(__file__).parent / "cpu" / "site"
GUARD = Path(__file__).parent / "guard"
# Not the engine's business: the agent's own settings and the Python environment it happens to run in.
_DROPPED = ("FOREBAY_", "DJANGO_", "CELERY_", "PYTHON", "VIRTUAL_ENV", "VLLM_API_KEY", "VLLM_SERVER_DEV_MODE")


class Vllm:
    """The `vllm` program at `program`, which may live in any Python environment."""

    def __init__(self, program: Path | None, environ: Mapping[str, str] = os.environ) -> None:
        self.program = program
        self._environ = environ
        self._version = VersionOf(program) if program else None

    def version(self) -> str:
        return self._version.text() if self._version else ""

    def command(self, launch: Launch) -> Command:
        if self.program is None:
            raise CannotStart("no vllm program on this node: install vLLM and set FOREBAY_VLLM to its path")
        if not os.access(self.program, os.X_OK):
            raise CannotStart(f"{self.program} is not a program that can be run; set FOREBAY_VLLM to vllm's path")
        spec = launch.spec
        if spec.model.startswith("/") and not (Path(spec.model) / "config.json").is_file():
            raise CannotStart(f"{spec.model} holds no config.json on this node: copy the model there")
        on_cpu = _on_cpu(launch)
        traces = self._traces(spec)
        argv = [
            str(self.program), "serve", spec.model,
            *(_cpu_defaults(launch) if on_cpu else ()),
            *(traces.args() if traces else ()),
            *spec.args,
            *_owned(launch, on_cpu),
        ]  # fmt: skip
        return Command(tuple(argv), self._env(launch, on_cpu) | (traces.env() if traces else {}))

    def import_env(self, address: str) -> dict[str, str]:
        """What the engines on this node's CPU slots have in common: the environment to import vLLM under for them. With
        one thread: of a pool that torch began as it was imported no fork could use the threads."""
        any_engine = ReplicaSpec(
            partition=1, name="", deployment="", role=Role.AGGREGATED, gpus=(), model="/", served_names=()
        )
        return self._env(Launch(any_engine, (), address, address, 0, 0, cores=1), on_cpu=True)

    def is_ready(self, client: httpx.Client, url: str, spec: ReplicaSpec) -> bool:
        return openai.is_ready(client, url, spec)

    def sample(self, client: httpx.Client, url: str) -> EngineSample | None:
        return openai.sample(client, url)

    def _traces(self, spec: ReplicaSpec) -> Traces | None:
        """Where this engine sends traces, unless its arguments say so, or nobody does."""
        traces = Traces.configured(self._environ)
        if traces is None or is_given(spec.args, TRACES_FLAG):
            return None
        if self._version is None or not self._version.can_trace():
            log.warning("%s sends no traces: %s", spec.name, NO_TRACES)
            return None
        return traces

    def _env(self, launch: Launch, on_cpu: bool) -> dict[str, str]:
        spec = launch.spec
        env = {name: value for name, value in self._environ.items() if not name.startswith(_DROPPED)}
        env |= {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "SPT_NOENV": "1",  # or setproctitle writes over the marker in /proc/<pid>/environ
            "PYTHONUNBUFFERED": "1",
            "VLLM_HOST_IP": launch.address,
        }
        if spec.api_key:
            env["VLLM_API_KEY"] = spec.api_key  # not an argument: every user of the host may read those
        if spec.model.startswith("/"):
            env["HF_HUB_OFFLINE"] = "1"
        if launch.sockets:
            env["VLLM_RPC_BASE_PATH"] = launch.sockets
        if spec.kv_connector:
            env["VLLM_NIXL_SIDE_CHANNEL_HOST"] = launch.address
            env["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(launch.side_port)
        return env | (_cpu_env(launch) if on_cpu else _gpu_env(launch)) | _guard_env(launch)


def kv_transfer_config(spec: ReplicaSpec, on_cpu: bool) -> dict[str, object]:
    """The same for every role, so that a new role needs no new process: the connector ignores `kv_role`."""
    config: dict[str, object] = {
        "kv_connector": spec.kv_connector,
        "kv_role": "kv_producer",
        "kv_load_failure_policy": "recompute",  # a prefill engine gone before the pull costs time, not the request
        "kv_connector_extra_config": {"kv_lease_duration": lease_s(spec)},
    }
    return config | ({"kv_buffer_device": "cpu"} if on_cpu else {})


def is_given(args: tuple[str, ...], flag: str) -> bool:
    """Whether `flag` is among the operator's arguments, as `--a-b x`, `--a-b=x`, `--a_b` or `--no-a-b`."""
    names = {arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")}
    return flag in names or flag.replace("--", "--no-", 1) in names


def _on_cpu(launch: Launch) -> bool:
    return any(device.kind == DeviceKind.CPU for device in launch.devices)


def _owned(launch: Launch, on_cpu: bool) -> Iterator[str]:
    """After the operator's arguments, for the last one counts."""
    spec = launch.spec
    if not is_given(spec.args, "--disable-uvicorn-access-log"):
        yield "--disable-uvicorn-access-log"  # or the agent's own look at /metrics fills the log
    yield from ("--served-model-name", *spec.served_names)
    yield from ("--host", launch.host, "--port", str(launch.port))
    yield from ("--shutdown-timeout", str(SHUTDOWN_S))
    if spec.revision:
        yield from ("--revision", spec.revision)
    if on_cpu:
        yield from ("--distributed-executor-backend", "uni")  # more slots are more threads, not more ranks
    else:
        yield from ("--tensor-parallel-size", str(len(spec.gpus)))
    if launch.can_sleep:
        yield "--enable-sleep-mode"
    # Last, so outermost: vLLM asks for its key on some paths only, and its development mode opens more.
    yield from ("--middleware", "forebay_guard.Guard")
    if spec.kv_connector:
        yield from ("--kv-transfer-config", json.dumps(kv_transfer_config(spec, on_cpu), separators=(",", ":")))


def _cpu_defaults(launch: Launch) -> Iterator[str]:
    given = launch.spec.args
    defaults = {
        "--dtype": "bfloat16",
        "--max-num-seqs": "8",
        "--block-size": "32",
        "--kv-cache-memory-bytes": str(cpu_kv_bytes(sum(device.memory_bytes for device in launch.devices))),
        "--max-model-len": str(_cpu_context(launch.spec.model)),
    }
    if not is_given(given, "--enforce-eager"):
        yield "--enforce-eager"
    for flag, value in defaults.items():
        if not is_given(given, flag):
            yield from (flag, value)


def cpu_kv_bytes(memory_bytes: int) -> int:
    """How much of its slots' memory an engine keeps for KV blocks when nobody says: an eighth, within bounds."""
    return max(CPU_KV_FLOOR_BYTES, min(CPU_KV_CAP_BYTES, memory_bytes // 8))


def _cpu_context(model: str) -> int:
    """CPU_CONTEXT, or less where the model has less."""
    try:
        config = json.loads((Path(model) / "config.json").read_text())
        return min(CPU_CONTEXT, int(config["max_position_embeddings"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):  # its files are untrusted
        return CPU_CONTEXT


def _cpu_env(launch: Launch) -> dict[str, str]:
    env = {"TMPDIR": launch.sockets} if launch.sockets else {}  # idle ones are killed, and would leave files there
    env |= {
        "OMP_NUM_THREADS": str(max(1, launch.cores)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "UCX_TLS": "tcp,sm,self",
        "PYTHONPATH": os.pathsep.join((str(CPU_PLUGIN), str(GUARD))),
        "CUDA_VISIBLE_DEVICES": "",
    }
    if os.environ.get("FOREBAY_CPU_SPAWN"):
        env["FOREBAY_CPU_SPAWN"] = os.environ["FOREBAY_CPU_SPAWN"]
    is_loopback = launch.address.startswith("127.") or launch.address in {"::1", "localhost"}
    return env | ({"UCX_NET_DEVICES": "lo"} if is_loopback else {})


def _gpu_env(launch: Launch) -> dict[str, str]:
    return {
        "PYTHONPATH": str(GUARD),
        "CUDA_VISIBLE_DEVICES": ",".join(device.uuid for device in launch.devices),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def _guard_env(launch: Launch) -> dict[str, str]:
    """vLLM's development mode is only for an engine that can sleep."""
    mode = {"VLLM_SERVER_DEV_MODE": "1"} if launch.can_sleep else {}
    return mode | ({"FOREBAY_GUARD_SECRET": launch.secret} if launch.secret else {})
