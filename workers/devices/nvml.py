"""NVIDIA GPUs and MIG devices through NVML: what is there, and one reading of each.

A call that a GPU does not support gives None, never zero. A GPU that falls off the bus stays listed as lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pynvml

from workers.contract import Device, DeviceKind, DeviceSample
from workers.devices import Holder
from workers.devices.nvml_health import Health, XidWatch, health_of, throttle_reasons
from workers.devices.nvml_inventory import Seen, inventory
from workers.processes import born

log = logging.getLogger(__name__)
RELIST_S = 30.0
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_UNINITIALIZED)
_UNKNOWN = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,  # what some drivers say for a MIG handle they do not serve
)
Handle = Any  # NVML's opaque pointer


class NoNvidia(Exception):
    """There is no NVIDIA driver on this host at all."""


@dataclass(slots=True)
class _Fault:
    """What a reading ran into."""

    lost: str = ""
    problems: list[str] = field(default_factory=list)


class Nvml:
    simulated = False

    def __init__(self, library: Any = pynvml) -> None:
        """Raises NoNvidia where the library is not installed; any other trouble becomes `driver()`'s text."""
        self._nvml = library
        self._driver = ""
        self._seen: dict[str, Seen] = {}
        self._listed_at: float | None = None
        self._ready = False
        self._xids = XidWatch(library)
        try:
            self._open()
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                raise NoNvidia("no NVIDIA driver: the NVML library is not installed") from error
            self._driver = self._explain(error)

    @property
    def is_working(self) -> bool:
        return self._ready

    def driver(self) -> str:
        return self._driver

    def devices(self) -> tuple[Device, ...]:
        return tuple(seen.device for seen in sorted(self._seen.values(), key=lambda s: s.device.index))

    def cores(self, uuids: Sequence[str]) -> int:
        return 0

    def sample(self, holders: Sequence[Holder], now: float) -> tuple[DeviceSample, ...]:
        self._relist(now)
        xids = self._xids.poll(self._seen.values())
        mine = frozenset(pid for holder in holders for pid in holder.pids)
        held = frozenset(uuid for holder in holders for uuid in holder.gpus)
        seen = sorted(self._seen.values(), key=lambda s: s.device.index)
        return tuple(self._reading(one, mine, held, xids.get(one.device.uuid)) for one in seen)

    def _open(self) -> None:
        self._nvml.nvmlInit()
        self._driver = _driver_text(self._nvml)
        self._ready = True
        self._list()

    def _relist(self, now: float) -> None:
        """The list changes when a GPU is lost or MIG is set up anew; the driver may come back, too."""
        if self._listed_at is not None and now - self._listed_at < RELIST_S:
            return
        self._listed_at = now
        try:
            if self._ready:
                self._list()
            else:
                self._open()
        except self._nvml.NVMLError as error:
            self._ready = False
            self._driver = self._explain(error)
            log.warning("%s", self._driver)
            for seen in self._seen.values():
                seen.lost = str(error)

    def _list(self) -> None:
        found = inventory(self._nvml)
        for uuid, seen in self._seen.items():
            if uuid not in found and seen.device.kind == DeviceKind.NVIDIA:
                seen.lost = "no longer listed by the driver"
                found[uuid] = seen
        self._seen = found

    def _explain(self, error: Any) -> str:
        if error.value == self._nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return "NVIDIA driver and NVML library differ in version: reboot, or reload the driver"
        if error.value == self._nvml.NVML_ERROR_DRIVER_NOT_LOADED:
            return "the NVIDIA driver is installed but not loaded: load the nvidia kernel module"
        return f"NVML cannot be used: {error}"

    def _reading(self, seen: Seen, mine: frozenset[int], held: frozenset[str], xid: Health | None) -> DeviceSample:
        device, handle = seen.device, seen.handle
        if seen.lost:
            return DeviceSample(uuid=device.uuid, health="lost", health_detail=seen.lost[:256])
        fault = _Fault()
        read = _Reader(self._nvml, fault)
        sample = _figures(read, self._nvml, seen) | {"ecc_uncorrected": _ecc(read, self._nvml, handle)}
        pids = _foreign(read, self._nvml, handle, mine, device.uuid in held)
        health = health_of(self._nvml, read, seen, xid)
        if fault.lost:
            return DeviceSample(uuid=device.uuid, health="lost", health_detail=fault.lost[:256])
        detail = "; ".join(filter(None, [health.detail, *fault.problems]))
        return DeviceSample(
            uuid=device.uuid,
            **sample,
            throttle=throttle_reasons(self._nvml, read, seen.physical)[:256],
            health=health.state,
            health_detail=detail[:256],
            foreign_pids=pids,
        )


class _Reader:
    """Calls NVML and turns its errors into None, keeping what a person should know."""

    def __init__(self, library: Any, fault: _Fault) -> None:
        self._nvml, self._fault = library, fault

    def __call__(self, call: Callable[..., Any], *args: object) -> Any:
        try:
            return call(*args)
        except self._nvml.NVMLError as error:
            if error.value in _LOST:
                self._fault.lost = self._fault.lost or str(error)
            elif error.value not in _UNKNOWN:
                problem = f"{call.__name__}: {error}"
                if problem not in self._fault.problems:
                    self._fault.problems.append(problem)
            return None


def _figures(read: _Reader, nvml: Any, seen: Seen) -> dict[str, Any]:
    """Of a MIG device NVML tells the memory; the temperature and the clocks are its GPU's. Utilization and power
    are not told for a slice, and the whole GPU's would be counted once per slice."""
    handle, physical, whole = seen.handle, seen.physical, seen.device.kind == DeviceKind.NVIDIA
    memory = read(nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = read(nvml.nvmlDeviceGetUtilizationRates, handle) if whole else None
    power = read(nvml.nvmlDeviceGetPowerUsage, handle) if whole else None
    limit = read(nvml.nvmlDeviceGetEnforcedPowerLimit, handle) if whole else None
    return {
        "memory_used_bytes": None if memory is None else int(memory.used),
        "utilization": None if rates is None else min(1.0, max(0.0, rates.gpu / 100)),
        "power_w": None if power is None else power / 1000,
        "power_limit_w": None if limit is None else limit / 1000,
        "temperature_c": _float(read(nvml.nvmlDeviceGetTemperature, physical, nvml.NVML_TEMPERATURE_GPU)),
        "sm_clock_mhz": _float(read(nvml.nvmlDeviceGetClockInfo, physical, nvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": _float(read(nvml.nvmlDeviceGetClockInfo, physical, nvml.NVML_CLOCK_MEM)),
    }


def _ecc(read: _Reader, nvml: Any, handle: Handle) -> int | None:
    count = read(
        nvml.nvmlDeviceGetTotalEccErrors, handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    )
    return None if count is None else int(count)


def _foreign(read: _Reader, nvml: Any, handle: Handle, mine: frozenset[int], held: bool) -> tuple[int, ...]:
    """Compute processes that are not this agent's.

    NVML gives the host's pids. In a container one of them may be this agent's engine under another number: on a
    device that an engine of ours holds, a pid that cannot be seen from here is taken for it.
    """
    processes = read(nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    pids = {int(process.pid) for process in processes} - mine
    return tuple(sorted(pid for pid in pids if not (held and not born(pid))))


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _driver_text(nvml: Any) -> str:
    driver = nvml.nvmlSystemGetDriverVersion()
    try:
        cuda = nvml.nvmlSystemGetCudaDriverVersion()
    except nvml.NVMLError:
        return f"NVIDIA {driver}"
    return f"NVIDIA {driver} / CUDA {cuda // 1000}.{cuda % 1000 // 10}"
