from __future__ import annotations

import os

import psutil
import pynvml
import pytest

from tests.workers.fake_nvml import FakeGpu, FakeNvml
from workers.contract import DeviceKind
from workers.devices import Holder
from workers.devices.nvml import NoNvidia, Nvml
from workers.processes import Figures

NOTHING: tuple[Holder, ...] = ()


def holder(uuid: str, *pids: int) -> Holder:
    return Holder((uuid,), frozenset(pids), Figures({}, 0))


def test_a_gpu_is_listed_and_read_in_full():
    source = Nvml(FakeNvml(FakeGpu("GPU-a")))
    [device], [sample] = source.devices(), source.sample(NOTHING, 0.0)
    assert (device.uuid, device.index, device.kind, device.name) == ("GPU-a", 0, DeviceKind.NVIDIA, "NVIDIA H200")
    assert device.memory_bytes == 141 * 10**9 and device.pci == "00000000:01:00.0"
    assert (sample.utilization, sample.memory_used_bytes, sample.power_w, sample.power_limit_w) == (
        0.37, 10**9, 312.5, 700.0,
    )  # fmt: skip
    assert (sample.temperature_c, sample.sm_clock_mhz, sample.memory_clock_mhz) == (54, 1980, 3201)
    assert sample.ecc_uncorrected == 0 and sample.health == "ok" and sample.foreign_pids == ()
    assert source.driver() == "NVIDIA 560.35.03 / CUDA 12.6"


FIELDS = {
    "nvmlDeviceGetUtilizationRates": "utilization",
    "nvmlDeviceGetMemoryInfo": "memory_used_bytes",
    "nvmlDeviceGetPowerUsage": "power_w",
    "nvmlDeviceGetEnforcedPowerLimit": "power_limit_w",
    "nvmlDeviceGetTemperature": "temperature_c",
    "nvmlDeviceGetClockInfo": "sm_clock_mhz",
    "nvmlDeviceGetTotalEccErrors": "ecc_uncorrected",
}


@pytest.mark.parametrize(("call", "field"), FIELDS.items())
@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION])
def test_what_a_gpu_does_not_tell_is_unknown_and_the_rest_is_told(call, field, error):
    gpu = FakeGpu("GPU-a")
    source = Nvml(FakeNvml(gpu))
    gpu.fails[call] = error
    [sample] = source.sample(NOTHING, 0.0)
    assert getattr(sample, field) is None
    others = [getattr(sample, name) for name in FIELDS.values() if name != field]
    assert None not in others and sample.health == "ok" and sample.health_detail == ""


def test_a_gpu_that_shares_the_hosts_memory_is_listed_with_the_hosts():
    gpu = FakeGpu("GPU-a", fails={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NOT_SUPPORTED})
    [device] = Nvml(FakeNvml(gpu)).devices()
    assert device.memory_bytes == psutil.virtual_memory().total


def test_an_error_that_is_no_mere_gap_is_told():
    gpu = FakeGpu("GPU-a")
    source = Nvml(FakeNvml(gpu))
    gpu.fails["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_UNKNOWN
    [sample] = source.sample(NOTHING, 0.0)
    assert sample.power_w is None and sample.health_detail == "nvmlDeviceGetPowerUsage: Unknown Error"


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED])
def test_a_lost_gpu_stays_listed_as_lost_and_the_others_go_on(error):
    lost, fine = FakeGpu("GPU-a"), FakeGpu("GPU-b")
    source = Nvml(FakeNvml(lost, fine))
    lost.fails["*"] = error
    for now in (0.0, 31.0, 62.0):  # the list is read anew in between
        first, second = source.sample(NOTHING, now)
        assert (first.uuid, first.health) == ("GPU-a", "lost") and first.health_detail
        assert first.memory_used_bytes is None and first.utilization is None
        assert (second.uuid, second.health, second.utilization) == ("GPU-b", "ok", 0.37)
    assert [device.uuid for device in source.devices()] == ["GPU-a", "GPU-b"]


def test_a_gpu_that_comes_back_is_well_again():
    gpu = FakeGpu("GPU-a")
    source = Nvml(FakeNvml(gpu))
    gpu.fails["*"] = pynvml.NVML_ERROR_GPU_IS_LOST
    assert source.sample(NOTHING, 0.0)[0].health == "lost"
    gpu.fails.clear()
    assert source.sample(NOTHING, 31.0)[0].health == "ok"


def test_a_driver_that_fails_later_loses_all_gpus_and_is_tried_again():
    library = FakeNvml(FakeGpu("GPU-a"))
    source = Nvml(library)
    library.nvmlDeviceGetCount = lambda: (_ for _ in ()).throw(  # type: ignore[method-assign]
        pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
    )
    [sample] = source.sample(NOTHING, 0.0)
    assert sample.health == "lost" and "Uninitialized" in source.driver()
    del library.nvmlDeviceGetCount
    assert source.sample(NOTHING, 31.0)[0].health == "ok" and source.driver().startswith("NVIDIA 560")


def test_a_driver_mismatch_gives_no_devices_and_a_clear_text():
    source = Nvml(FakeNvml(FakeGpu("GPU-a"), init_error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    assert source.devices() == () and source.sample(NOTHING, 0.0) == ()
    assert "differ in version: reboot" in source.driver() and not source.is_working


def test_a_driver_that_is_not_loaded_says_so():
    source = Nvml(FakeNvml(init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    assert "not loaded" in source.driver()


def test_a_driver_that_is_mended_later_gives_its_devices_without_a_restart():
    library = FakeNvml(FakeGpu("GPU-a"), init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    source = Nvml(library)
    library.init_error = None
    assert [sample.health for sample in source.sample(NOTHING, 31.0)] == ["ok"]


def test_a_host_without_the_library_has_no_nvidia():
    with pytest.raises(NoNvidia, match="not installed"):
        Nvml(FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))


def test_mig_devices_are_listed_as_what_they_are_in_place_of_their_gpu():
    small = FakeGpu("MIG-1", name="NVIDIA H200 MIG 1g.18gb", memory=18 * 10**9, used=5)
    large = FakeGpu("MIG-2", name="NVIDIA H200 MIG 3g.71gb", memory=71 * 10**9)
    source = Nvml(FakeNvml(FakeGpu("GPU-a", mig=[small, None, large]), FakeGpu("GPU-b")))
    whole, first, second = source.devices()
    assert (whole.uuid, whole.kind) == ("GPU-b", DeviceKind.NVIDIA)
    assert (first.uuid, first.kind, first.mig_parent, first.index) == ("MIG-1", DeviceKind.MIG, "GPU-a", 1000)
    assert (second.uuid, second.index, second.memory_bytes) == ("MIG-2", 1002, 71 * 10**9)
    sample = source.sample(NOTHING, 0.0)[1]
    assert sample.memory_used_bytes == 5 and sample.temperature_c == 54
    assert sample.utilization is None and sample.power_w is None  # told of the whole GPU only


def test_mig_mode_without_an_instance_is_a_gpu_that_cannot_serve():
    [sample] = Nvml(FakeNvml(FakeGpu("GPU-a", mig=[]))).sample(NOTHING, 0.0)
    assert sample.health == "degraded" and "no instance" in sample.health_detail


def test_gpus_joined_by_links_or_by_switches_are_peers():
    switch = "00000000:F0:00.0"
    a, b = FakeGpu("GPU-a", links={0: "00000000:02:00.0"}), FakeGpu("GPU-b", links={0: "00000000:01:00.0"})
    c, d = FakeGpu("GPU-c", links={0: switch}), FakeGpu("GPU-d", links={3: switch})
    peers = {device.uuid: device.peers for device in Nvml(FakeNvml(a, b, c, d, FakeGpu("GPU-e"))).devices()}
    assert peers == {
        "GPU-a": ("GPU-b",), "GPU-b": ("GPU-a",), "GPU-c": ("GPU-d",), "GPU-d": ("GPU-c",), "GPU-e": (),
    }  # fmt: skip


def test_processes_of_others_are_told_and_our_own_are_not():
    unseen = 2**22 + 1  # more than any pid of this host: as a container sees another namespace's
    gpu = FakeGpu("GPU-a", pids=(11, unseen))
    source = Nvml(FakeNvml(gpu))
    assert source.sample([holder("GPU-a", 11)], 0.0)[0].foreign_pids == ()
    assert source.sample(NOTHING, 0.0)[0].foreign_pids == (11, unseen)
    gpu.pids = (11, os.getpid())
    assert source.sample([holder("GPU-a", 11)], 0.0)[0].foreign_pids == (os.getpid(),)


@pytest.mark.parametrize(
    ("xid", "health", "text"),
    [(79, "lost", "fallen off"), (48, "degraded", "double bit"), (31, "ok", ""), (13, "ok", "")],
)
def test_xid_events_of_the_hardware_stay_those_of_programs_do_not_count(xid, health, text):
    gpu, other = FakeGpu("GPU-a"), FakeGpu("GPU-b")
    library = FakeNvml(gpu, other)
    source = Nvml(library)
    source.sample(NOTHING, 0.0)
    library.events.append((gpu, xid))
    for now in (1.0, 2.0):
        first, second = source.sample(NOTHING, now)
        assert first.health == health and text in first.health_detail and second.health == "ok"


@pytest.mark.parametrize(("remapped", "text"), [((0, 0, 1, 0), "waits for a reset"), ((0, 1, 0, 1), "replace the GPU")])
def test_memory_under_repair_degrades_a_gpu(remapped, text):
    [sample] = Nvml(FakeNvml(FakeGpu("GPU-a", remapped=remapped))).sample(NOTHING, 0.0)
    assert sample.health == "degraded" and text in sample.health_detail


def test_throttle_reasons_are_named_and_idling_is_none():
    bits = pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    [sample] = Nvml(FakeNvml(FakeGpu("GPU-a", throttle=bits))).sample(NOTHING, 0.0)
    assert sample.throttle == "HwThermalSlowdown,SwPowerCap"
    [idle] = Nvml(FakeNvml(FakeGpu("GPU-b", throttle=pynvml.nvmlClocksEventReasonGpuIdle))).sample(NOTHING, 0.0)
    assert idle.throttle == ""
