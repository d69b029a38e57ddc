from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.workers.control import make_spec
from workers.contract import Device, DeviceKind, EngineSample, Histogram, Role
from workers.engines import CannotStart, Launch, metrics, openai
from workers.engines.vllm import CPU_PLUGIN, GUARD, Vllm, cpu_kv_bytes, is_given
from workers.engines.vllm_version import VersionOf
from workers.reconcile import GRACE_S

GPUS = tuple(Device(uuid=f"GPU-{i}", index=i, kind=DeviceKind.NVIDIA, name="H200", memory_bytes=1) for i in range(2))
SLOT = Device(uuid="CPU-0", index=0, kind=DeviceKind.CPU, name="cpu", memory_bytes=4 * 2**30)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "vllm"
    path.write_text(f"#!{sys.executable}\nprint('vllm 9.9')\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 1024}))
    return str(folder)


def launch(model: str, devices: tuple[Device, ...] = GPUS, **changes: object) -> Launch:
    spec = make_spec(
        1, gpus=tuple(d.uuid for d in devices), model=model, engine="vllm", kv_connector="NixlConnector",
        served_names=("demo", "alias"), kv_lease_s=30, **changes,
    )  # fmt: skip
    on_cpu = devices[0].kind == DeviceKind.CPU
    return Launch(spec, devices, "127.0.0.1", "127.0.0.1", 18100, 18200, cores=3 if on_cpu else 0)


def value(argv: tuple[str, ...], flag: str) -> str:
    return argv[len(argv) - argv[::-1].index(flag)]  # the last one counts


def test_on_gpus_every_device_is_a_tensor_parallel_rank(program, model):
    command = Vllm(program, {"PATH": "/bin"}).command(launch(model))
    assert command.argv[:3] == (str(program), "serve", model)
    assert value(command.argv, "--tensor-parallel-size") == "2"
    assert command.env["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert "--enforce-eager" not in command.argv and command.env["PYTHONPATH"] == str(GUARD)


def test_names_port_and_shutdown_are_the_agents_whatever_the_operator_says(program, model):
    args = ("--port", "1", "--host=0.0.0.0", "--shutdown-timeout", "0", "--served-model-name", "x")
    argv = Vllm(program, {}).command(launch(model, args=args)).argv
    assert (value(argv, "--port"), value(argv, "--host")) == ("18100", "127.0.0.1")
    at = len(argv) - argv[::-1].index("--served-model-name")
    assert argv[at : at + 2] == ("demo", "alias")
    assert 0 < int(value(argv, "--shutdown-timeout")) < GRACE_S


def test_both_roles_get_the_same_command_so_that_a_flip_needs_no_new_process(program, model):
    engine = Vllm(program, {})
    assert engine.command(launch(model, role=Role.PREFILL)) == engine.command(launch(model, role=Role.DECODE))


def test_the_kv_lease_and_what_happens_without_the_prefill_engine_are_explicit(program, model):
    engine = Vllm(program, {})
    config = json.loads(value(engine.command(launch(model)).argv, "--kv-transfer-config"))
    assert config == {
        "kv_connector": "NixlConnector",
        "kv_role": "kv_producer",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"kv_lease_duration": 30},
    }
    on_cpu = json.loads(value(engine.command(launch(model, (SLOT,))).argv, "--kv-transfer-config"))
    assert on_cpu == config | {"kv_buffer_device": "cpu"}


def test_without_a_connector_there_is_no_side_channel(program, model):
    one = launch(model)
    spec = make_spec(1, gpus=("GPU-0", "GPU-1"), model=model, role=Role.AGGREGATED, kv_connector="")
    command = Vllm(program, {}).command(Launch(spec, one.devices, "h", "h", 1, 2, 0))
    assert "--kv-transfer-config" not in command.argv and "VLLM_NIXL_SIDE_CHANNEL_PORT" not in command.env


def test_the_key_is_in_the_environment_and_nothing_of_the_agents_is(program, model):
    environ = {
        "FOREBAY_SECRET": "s", "PYTHONPATH": "/agent", "VIRTUAL_ENV": "/agent", "VLLM_SERVER_DEV_MODE": "1",
        "HF_TOKEN": "kept", "VLLM_LOGGING_LEVEL": "kept",
    }  # fmt: skip
    command = Vllm(program, environ).command(launch(model))
    assert command.env["VLLM_API_KEY"] == "engine-key-of-the-test"
    assert not any("engine-key" in arg for arg in command.argv)
    assert not {"FOREBAY_SECRET", "VIRTUAL_ENV", "VLLM_SERVER_DEV_MODE"} & set(command.env)
    assert "/agent" not in command.env["PYTHONPATH"]
    assert command.env["HF_TOKEN"] == command.env["VLLM_LOGGING_LEVEL"] == "kept"
    assert command.env["SPT_NOENV"] == "1" and command.env["HF_HUB_OFFLINE"] == "1"


def test_a_repository_id_may_use_the_network_and_takes_its_revision(program):
    command = Vllm(program, {}).command(launch("org/name", revision="abc"))
    assert "HF_HUB_OFFLINE" not in command.env and value(command.argv, "--revision") == "abc"


def test_cpu_slots_bring_defaults_that_give_way_to_the_operators(program, model):
    engine = Vllm(program, {})
    command = engine.command(launch(model, (SLOT,)))
    assert value(command.argv, "--dtype") == "bfloat16" and "--enforce-eager" in command.argv
    assert value(command.argv, "--block-size") == "32" and value(command.argv, "--max-num-seqs") == "8"
    assert value(command.argv, "--max-model-len") == "1024"  # the model has no more
    assert value(command.argv, "--kv-cache-memory-bytes") == str(256 * 2**20)
    assert command.env["OMP_NUM_THREADS"] == "3"
    assert command.env["PYTHONPATH"].split(os.pathsep) == [str(CPU_PLUGIN), str(GUARD)]
    assert command.env["UCX_NET_DEVICES"] == "lo" and "--tensor-parallel-size" not in command.argv
    # What it is imported under has one thread, whatever the slots have: a fork keeps no others.
    assert engine.import_env("127.0.0.1")["OMP_NUM_THREADS"] == "1"
    args = ("--dtype=float32", "--max_num_seqs", "2", "--no-enforce-eager", "--max-model-len", "512")
    own = engine.command(launch(model, (SLOT,), args=args)).argv
    assert "--enforce-eager" not in own and "bfloat16" not in own and value(own, "--max-model-len") == "512"


@pytest.mark.parametrize("config", ['{"max_position_embeddings": Infinity}', "[" * 100_000, "[]", "\ufeff{}"])
def test_a_hostile_config_brings_the_usual_context(program, tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    command = Vllm(program, {}).command(launch(str(tmp_path), (SLOT,)))
    assert value(command.argv, "--max-model-len") == "2048"


def test_an_engine_reached_from_other_hosts_is_not_tied_to_loopback(program, model):
    one = launch(model, (SLOT,))
    remote = Launch(one.spec, one.devices, "10.0.0.5", "10.0.0.5", 1, 2, 1)
    command = Vllm(program, {}).command(remote)
    assert "UCX_NET_DEVICES" not in command.env
    assert command.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.5"


def test_kv_memory_on_cpu_is_bounded_both_ways():
    assert cpu_kv_bytes(2**30) == 128 * 2**20
    assert cpu_kv_bytes(100 * 2**30) == 256 * 2**20 and cpu_kv_bytes(1) == 64 * 2**20


@pytest.mark.parametrize("args", [("--a-b", "1"), ("--a-b=1",), ("--a_b=1",), ("--no-a-b",)])
def test_an_argument_is_recognised_in_every_spelling(args):
    assert is_given(args, "--a-b") and not is_given(args, "--a")


def test_what_is_missing_is_named(tmp_path, program, model):
    for vllm, folder, text in [
        (None, model, "FOREBAY_VLLM"),
        (tmp_path / "none", model, "not a program"),
        (program, "/nowhere/model", "holds no config.json"),
    ]:
        with pytest.raises(CannotStart, match=text):
            Vllm(vllm, {}).command(launch(folder))


def test_the_version_is_asked_for_once_for_each_state_of_the_program(tmp_path):
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho called >> " + str(tmp_path / "calls") + "\necho vllm 1.2.3\n")
    program.chmod(0o755)
    version = VersionOf(program)
    assert version.text(20) == version.text() == "1.2.3"
    assert (tmp_path / "calls").read_text().count("called") == 1
    program.write_text(program.read_text().replace("1.2.3", "1.10.0"))
    assert version.text(20) == "1.10.0"
    program.unlink()
    assert version.text() == ""


def test_a_program_that_cannot_tell_has_no_version(program):
    assert VersionOf(program).text(20) == ""  # its Python holds no vLLM


# --- traces ----------------------------------------------------------------------------------------------


@pytest.fixture
def tracing(tmp_path: Path) -> Path:
    """A program whose Python says that it holds vLLM and OpenTelemetry."""
    python, program = tmp_path / "python", tmp_path / "vllm-traces"
    python.write_text("#!/bin/sh\necho traces\necho 1.2.3\n")
    program.write_text(f"#!{python}\n")
    python.chmod(0o755), program.chmod(0o755)
    return program


BASE, OWN = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "endpoint", "protocol"),
    [
        ({BASE: "http://c:4318"}, "http://c:4318/v1/traces", "http/protobuf"),
        ({BASE: "http://c:4318/"}, "http://c:4318/v1/traces", "http/protobuf"),
        ({BASE: "http://c:4318", OWN: "http://t:1/x"}, "http://t:1/x", "http/protobuf"),
        ({BASE: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://c:4317", "grpc"),
        ({OWN: "http://c:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "http://c:4317", "grpc"),
    ],
)
def test_an_engine_sends_its_traces_where_the_agents_environment_says(tracing, model, environ, endpoint, protocol):
    assert Vllm(tracing, environ).version() == "1.2.3"
    command = Vllm(tracing, environ).command(launch(model))
    assert value(command.argv, "--otlp-traces-endpoint") == endpoint
    assert command.env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == protocol
    assert command.env["OTEL_SERVICE_NAME"] == "forebay-engine"


@pytest.mark.parametrize("environ", [{}, {BASE: ""}, {BASE: "http://c:4318", "OTEL_SDK_DISABLED": "True"}])
def test_without_an_endpoint_it_sends_none(tracing, model, environ):
    command = Vllm(tracing, environ).command(launch(model))
    assert "--otlp-traces-endpoint" not in command.argv and "OTEL_SERVICE_NAME" not in command.env


def test_the_operators_own_endpoint_and_service_name_stay(tracing, model):
    args = ("--otlp-traces-endpoint=grpc://mine:1",)
    command = Vllm(tracing, {BASE: "http://c:4318"}).command(launch(model, args=args))
    assert [arg for arg in command.argv if arg.startswith("--otlp")] == list(args)
    assert "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" not in command.env
    named = Vllm(tracing, {BASE: "http://c:4318", "OTEL_SERVICE_NAME": "mine"}).command(launch(model))
    assert named.env["OTEL_SERVICE_NAME"] == "mine"


def test_a_vllm_without_opentelemetry_starts_and_the_log_says_what_it_lacks(program, model, caplog):
    command = Vllm(program, {BASE: "http://c:4318"}).command(launch(model))
    assert "--otlp-traces-endpoint" not in command.argv
    assert "install opentelemetry-exporter-otlp" in caplog.text


# --- what it says of itself ------------------------------------------------------------------------------

METRICS = """# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} NaN
vllm:prompt_tokens_total{engine="0"} 100.0
vllm:prompt_tokens_created{engine="0"} 1.7e9
vllm:prompt_tokens_by_source_total{source="local_compute"} 40.0
vllm:prompt_tokens_by_source_total{source="external_kv_transfer"} 60.0
vllm:request_success_total{finished_reason="stop"} 3.0
vllm:request_success_total{finished_reason="length"} 4.0
vllm:time_to_first_token_seconds_bucket{le="0.1"} 5.0
vllm:time_to_first_token_seconds_sum 0.5
vllm:time_to_first_token_seconds_count 7.0
vllm:nixl_num_failed_transfers_total 1.0
process_cpu_seconds_total 9.0
"""


def test_metrics_are_summed_and_what_is_missing_or_nan_is_unknown():
    sample = metrics.parse(METRICS)
    assert (sample.running, sample.waiting, sample.requests_total) == (3.0, 0.0, 7.0)
    assert (sample.prompt_tokens_total, sample.external_kv_tokens_total) == (100.0, 60.0)
    assert (sample.ttft_sum_s, sample.ttft_count, sample.nixl_failures_total) == (0.5, 7.0, 1.0)
    assert sample.kv_usage is None and sample.generation_tokens_total is None and sample.itl_count is None


def test_metrics_that_are_none_are_all_unknown():
    assert metrics.parse("<html>no</html>") == openai.parse("") == openai.parse("vllm:num_requests_running{ x")


def test_a_real_engines_metrics_are_read_whole():
    """As vLLM 0.32 on CPU gave them after four prompts, three of which came as KV from another engine."""
    sample = metrics.parse((Path(__file__).parents[1] / "data" / "vllm_0_32_decode.prom").read_text())
    assert [name for name in EngineSample.__struct_fields__ if getattr(sample, name) is None] == []
    assert (sample.prompt_tokens_total, sample.computed_tokens_total, sample.external_kv_tokens_total) == (383, 6, 377)
    assert (sample.external_prefix_hits_total, sample.nixl_bytes_total, sample.nixl_transfers_total) == (377, 196608, 3)
    assert (sample.nixl_failures_total, sample.kv_expired_total, sample.kv_late_notifications_total) == (0, 0, 0)
    assert sample.asleep is False and sample.itl_count == 45
    assert sample.kv_tokens == 16384 * 32
    assert sample.ttft == Histogram((0.01, 0.02, 0.1, 0.25), (0, 2, 2, 4), 4, sample.ttft_sum_s)


@pytest.mark.parametrize(
    ("ranks", "tokens"),
    [
        (['block_size="16",num_gpu_blocks="100"', 'num_gpu_blocks="50",block_size="16"'], 2400.0),
        (['block_size="16",num_gpu_blocks="100"', 'block_size="16",num_gpu_blocks="None"'], None),
        (['mamba_block_size="16",num_gpu_blocks_override="100",num_gpu_blocks="7"'], None),
        (['block_size="16",num_gpu_blocks="0"'], None),
        ([], None),
    ],
)
def test_the_capacity_of_the_kv_cache_is_known_if_every_rank_tells_it(ranks, tokens):
    text = "".join(f"vllm:cache_config_info{{{labels}}} 1.0\n" for labels in ranks)
    assert metrics.parse(text).kv_tokens == tokens


def test_what_a_report_carries_of_a_real_engine_is_small():
    sample = metrics.parse((Path(__file__).parents[1] / "data" / "vllm_0_32_decode.prom").read_text())
    assert len(msgspec.json.encode(sample)) < 1200


RANKS = """
vllm:e2e_request_latency_seconds_bucket{le="0.5",engine="0"} 1
vllm:e2e_request_latency_seconds_bucket{engine="0",le="1.0"} 1
vllm:e2e_request_latency_seconds_bucket{engine="0",le="2.0"} 1
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf"} 1
vllm:e2e_request_latency_seconds_sum{engine="0"} 0.25
vllm:e2e_request_latency_seconds_bucket{le="0.5",engine="1",model_name="a}b,le=\\"9\\""} 0
vllm:e2e_request_latency_seconds_bucket{le="1.0",engine="1"} 0
vllm:e2e_request_latency_seconds_bucket{le="2.0",engine="1"} 1
vllm:e2e_request_latency_seconds_bucket{le="+Inf",engine="1"} 2
vllm:e2e_request_latency_seconds_sum{engine="1"} 40.0
vllm:request_queue_time_seconds_bucket{le="0.5"} NaN
vllm:request_queue_time_seconds_bucket{le="+Inf"} 3
vllm:request_decode_time_seconds_bucket{le="0.5"} 3
vllm:engine_sleep_state{sleep_state="awake"} 0.0
vllm:engine_sleep_state{sleep_state="weights_offloaded"} 1.0
"""


def test_histograms_of_ranks_add_up_and_half_a_histogram_is_unknown():
    sample = metrics.parse(RANKS)
    assert sample.e2e == Histogram((0.5, 1.0, 2.0), (1, 1, 2), 3, 40.25)
    assert (sample.queue, sample.decode, sample.ttft) == (None, None, None)
    assert sample.asleep is True


def client(health: int, completion: int, seen: list[httpx.Request]) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(health if request.url.path == "/health" else completion, json={})

    return httpx.Client(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("health", "completion", "ready"), [(200, 200, True), (200, 500, False), (200, 401, False), (503, 200, False)]
)
def test_ready_is_more_than_healthy(health, completion, ready):
    seen: list[httpx.Request] = []
    assert openai.is_ready(client(health, completion, seen), "http://e", make_spec()) is ready
    if health == 200:
        assert seen[1].headers["Authorization"] == "Bearer engine-key-of-the-test"
        assert json.loads(seen[1].content)["max_tokens"] == 1


def test_an_engine_that_does_not_answer_is_not_ready_and_tells_nothing():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    nobody = httpx.Client(transport=httpx.MockTransport(refuse))
    assert not openai.is_ready(nobody, "http://e", make_spec()) and openai.sample(nobody, "http://e") is None
