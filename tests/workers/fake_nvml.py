"""NVML without a GPU: the calls of the pynvml module that the agent makes, its constants and its own error classes.

Any call can be made to fail for a GPU, as the real library fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class FakeGpu:
    uuid: str
    name: str = "NVIDIA H200"
    memory: int = 141 * 10**9
    used: int = 10**9
    pids: tuple[int, ...] = ()
    mig: list[FakeGpu | None] | None = None  # None: MIG off; a None in the list: an empty slot
    links: dict[int, str] = field(default_factory=dict)  # link -> PCI address of the far end
    throttle: int = 0
    remapped: tuple[int, int, int, int] = (0, 0, 0, 0)
    fails: dict[str, int] = field(default_factory=dict)  # call, or "*" -> NVML error
    pci: str = ""
    parent: FakeGpu | None = None


class FakeNvml:
    """Has every attribute of pynvml that is a constant or a class; the functions used are its own."""

    def __init__(self, *gpus: FakeGpu, init_error: int | None = None) -> None:
        self.gpus, self.init_error = list(gpus), init_error
        self.events: list[tuple[FakeGpu, int]] = []
        for index, gpu in enumerate(self.gpus):
            gpu.pci = gpu.pci or f"00000000:{index + 1:02X}:00.0"
            for one in gpu.mig or []:
                if one:
                    one.parent = gpu

    def __getattr__(self, name: str) -> Any:
        value = getattr(pynvml, name)
        if callable(value) and not isinstance(value, type):
            raise AssertionError(f"{name} is called, but the fake does not know it")
        return value

    def __dir__(self) -> list[str]:
        return dir(pynvml)

    def _try(self, call: str, gpu: FakeGpu) -> FakeGpu:
        for failing in (gpu, *((gpu.parent,) if gpu.parent else ())):
            code = failing.fails.get(call, failing.fails.get("*"))
            if code is not None:
                raise pynvml.NVMLError(code)
        return gpu

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "560.35.03"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12060

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._try("nvmlDeviceGetHandleByIndex", self.gpus[index])

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return self._try("nvmlDeviceGetUUID", gpu).uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return self._try("nvmlDeviceGetName", gpu).name

    def nvmlDeviceGetPciInfo(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(busId=self._try("nvmlDeviceGetPciInfo", gpu).pci)

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        self._try("nvmlDeviceGetMemoryInfo", gpu)
        return SimpleNamespace(total=gpu.memory, used=gpu.used, free=gpu.memory - gpu.used)

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:
        if gpu.parent:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self._try("nvmlDeviceGetUtilizationRates", gpu)
        return SimpleNamespace(gpu=37, memory=12)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        self._try("nvmlDeviceGetPowerUsage", gpu)
        return 312500

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        self._try("nvmlDeviceGetEnforcedPowerLimit", gpu)
        return 700000

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        self._try("nvmlDeviceGetTemperature", gpu)
        return 54

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, kind: int) -> int:
        self._try("nvmlDeviceGetClockInfo", gpu)
        return {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201}[kind]

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, error_type: int, counter: int) -> int:
        self._try("nvmlDeviceGetTotalEccErrors", gpu)
        return 0

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: FakeGpu) -> int:
        return self._try("nvmlDeviceGetCurrentClocksEventReasons", gpu).throttle

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:
        self._try("nvmlDeviceGetComputeRunningProcesses", gpu)
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in gpu.pids]

    def nvmlDeviceGetRemappedRows(self, gpu: FakeGpu) -> tuple[int, int, int, int]:
        return self._try("nvmlDeviceGetRemappedRows", gpu).remapped

    def nvmlDeviceGetRetiredPagesPendingStatus(self, gpu: FakeGpu) -> int:
        self._try("nvmlDeviceGetRetiredPagesPendingStatus", gpu)
        return int(pynvml.NVML_FEATURE_DISABLED)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        self._try("nvmlDeviceGetMigMode", gpu)
        mode = pynvml.NVML_DEVICE_MIG_DISABLE if gpu.mig is None else pynvml.NVML_DEVICE_MIG_ENABLE
        return [mode, mode]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, slot: int) -> FakeGpu:
        slots = gpu.mig or []
        if slot >= len(slots) or slots[slot] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        found = slots[slot]
        assert found is not None
        return found

    def nvmlDeviceGetNvLinkState(self, gpu: FakeGpu, link: int) -> int:
        if not gpu.links:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(pynvml.NVML_FEATURE_ENABLED if link in gpu.links else pynvml.NVML_FEATURE_DISABLED)

    def nvmlDeviceGetNvLinkRemotePciInfo(self, gpu: FakeGpu, link: int) -> Any:
        return SimpleNamespace(busId=gpu.links[link])

    def nvmlEventSetCreate(self) -> object:
        return object()

    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, types: int, event_set: object) -> None:
        self._try("nvmlDeviceRegisterEvents", gpu)

    def nvmlEventSetWait(self, event_set: object, timeout_ms: int) -> Any:
        if not self.events:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        gpu, xid = self.events.pop(0)
        return SimpleNamespace(device=gpu, eventData=xid, eventType=pynvml.nvmlEventTypeXidCriticalError)
