from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workers import processes
from workers.config import Config, ConfigError, Settings
from workers.contract import DeviceKind
from workers.devices import Holder
from workers.devices.cpu import MEMORY_SHARE, CpuSlots, host_id
from workers.devices.discover import discover
from workers.devices.simulated import SimulatedDevices
from workers.processes import Figures, Process

CONFIG = Config(
    url="http://c", node=7, name="n1", node_token="t", instance="abc", address="127.0.0.1", host="h"
)  # fmt: skip


def holder(*gpus: str, cpu: dict[int, float], memory: int = 0) -> Holder:
    return Holder(gpus, frozenset(cpu), Figures(cpu, memory))


def test_slots_share_the_host_equally_and_keep_their_names():
    first, second = CpuSlots(2, "x").devices(), CpuSlots(2, "x").devices()
    assert first == second and [d.index for d in first] == [0, 1]
    assert len({d.uuid for d in first}) == 2 and {d.kind for d in first} == {DeviceKind.CPU}
    assert first[0].memory_bytes == int(psutil.virtual_memory().total * MEMORY_SHARE / 2)


def test_a_host_is_named_without_giving_its_machine_id_away():
    assert host_id("x") == host_id("x") and len(host_id("x")) == 12


def test_utilization_is_the_trees_cpu_time_over_the_slots_cores():
    source = CpuSlots(2, "x")
    source._cores = 4  # two cores a slot
    one, _ = (device.uuid for device in source.devices())
    assert source.sample([holder(one, cpu={1: 5.0, 2: 1.0})], 10.0)[0].utilization is None  # not known yet
    busy, idle = source.sample([holder(one, cpu={1: 6.0, 2: 1.5}, memory=77)], 11.0)
    assert busy.utilization == pytest.approx(0.75) and busy.memory_used_bytes == 77
    assert idle.utilization == 0.0 and idle.memory_used_bytes == 0  # measured: no engine is on it
    assert busy.power_w is None and busy.temperature_c is None


def test_a_child_that_ended_is_no_negative_work_and_a_new_one_no_burst():
    source = CpuSlots(1, "x")
    [uuid] = (device.uuid for device in source.devices())
    source.sample([holder(uuid, cpu={1: 5.0, 2: 100.0})], 10.0)
    [sample] = source.sample([holder(uuid, cpu={1: 5.5, 3: 900.0})], 11.0)
    assert sample.utilization == pytest.approx(0.5 / psutil.cpu_count())


def test_an_engine_on_two_slots_is_spread_over_both():
    source = CpuSlots(2, "x")
    source._cores = 2
    both = tuple(device.uuid for device in source.devices())
    source.sample([holder(*both, cpu={1: 0.0})], 0.0)
    samples = source.sample([holder(*both, cpu={1: 1.0}, memory=100)], 1.0)
    assert [s.utilization for s in samples] == [0.5, 0.5] and [s.memory_used_bytes for s in samples] == [50, 50]
    assert source.cores(both) == 2 and source.cores(both[:1]) == 1


def test_a_real_process_tree_is_measured_children_included():
    burn = "import subprocess, sys; b = bytearray(60_000_000); subprocess.run([sys.executable, '-c', 'while True: 1'])"
    child = subprocess.Popen([sys.executable, "-c", burn], start_new_session=True)
    try:
        process = Process(child.pid, processes.born(child.pid), processes.boot_id())
        deadline = time.monotonic() + 20
        while len(processes.tree(process)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        before = processes.figures(processes.tree(process))
        time.sleep(1.0)
        after = processes.figures(processes.tree(process))
        assert sum(after.cpu_s.values()) > sum(before.cpu_s.values()) and len(after.cpu_s) == 2
        assert after.memory_bytes > 60_000_000
    finally:
        processes.kill(processes.session_members(process))
        child.wait()
    assert processes.tree(process) == [] and not processes.is_alive(process)


def test_simulated_devices_say_so_and_follow_what_runs_on_them(tmp_path):
    source = SimulatedDevices(2, "n1", tmp_path / "faults")
    assert source.simulated and {d.kind for d in source.devices()} == {DeviceKind.SIMULATED}
    busy = Holder(("SIM-n1-0",), frozenset({1}), Figures({}, 10), running=4.0)
    first, second = source.sample([busy], 0.0)
    assert (first.utilization, first.memory_used_bytes, second.utilization) == (0.5, 10, 0.0)
    (tmp_path / "faults").write_text("1 degraded Xid 48\n0 lost\nnonsense\n")
    first, second = source.sample([busy], 0.0)
    assert (first.health, first.utilization) == ("lost", None)
    assert (second.health, second.health_detail) == ("degraded", "Xid 48")


def settings(tmp_path: Path, **environ: str) -> Settings:
    return Settings.read(tmp_path, {"PATH": "", **environ})


def test_without_a_driver_a_host_offers_its_cpu_slots_and_says_why(tmp_path):
    source = discover(settings(tmp_path, FOREBAY_CPU_SLOTS="3"), CONFIG)
    if not source.driver().startswith("no NVIDIA driver"):
        pytest.skip("this host has an NVIDIA driver")
    assert len(source.devices()) == 3 and "3 CPU slots offered" in source.driver()
    assert discover(settings(tmp_path, FOREBAY_DEVICES="nvidia"), CONFIG).devices() == ()


def test_what_to_offer_can_be_told(tmp_path):
    assert len(discover(settings(tmp_path, FOREBAY_DEVICES="cpu"), CONFIG).devices()) == 2
    assert len(discover(settings(tmp_path, FOREBAY_DEVICES="simulated:8"), CONFIG).devices()) == 8


@pytest.mark.parametrize(
    "environ",
    [
        {"FOREBAY_DEVICES": "tpu"},
        {"FOREBAY_DEVICES": "simulated:x"},
        {"FOREBAY_CPU_SLOTS": "-1"},
        {"FOREBAY_ENGINE_PORTS": "18100"},
        {"FOREBAY_SIDE_PORTS": "9-1"},
    ],
)
def test_a_setting_that_cannot_be_is_refused(tmp_path, environ):
    with pytest.raises(ConfigError):
        settings(tmp_path, **environ)


def test_the_config_names_its_host(tmp_path):
    home = settings(tmp_path).home
    home.prepare()
    with pytest.raises(ConfigError, match="join first"):
        home.load()
    home.save(CONFIG)
    with pytest.raises(ConfigError, match="join again"):
        home.load()
    assert json.loads((tmp_path / "agent.json").read_text())["node"] == 7
    (tmp_path / "agent.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        home.load()


def test_memory_that_a_fork_shares_is_counted_once():
    code = (
        "import os, time\nb = bytearray(b'x') * 80_000_000\n"
        "os.fork() or time.sleep(60)\nprint('forked', flush=True)\ntime.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    process = Process(child.pid, processes.born(child.pid), processes.boot_id())
    try:
        deadline = time.monotonic() + 20
        while len(members := processes.session_members(process)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(members) == 2 and 80_000_000 < processes.pss_bytes(members) < 130_000_000
    finally:
        processes.kill(processes.session_members(process))
        child.communicate()
    assert processes.pss_bytes(members) == 0
