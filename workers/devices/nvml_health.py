"""Whether a GPU is fit to serve: Xid events, memory repair, MIG left without an instance, throttling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from workers.devices.nvml_inventory import Seen

log = logging.getLogger(__name__)
Read = Callable[..., Any]

LOST_XIDS = {79: "the GPU has fallen off the bus"}
# Those that tell of the hardware or the driver. Others (13, 31, 43, ...) are faults of the program that ran.
HARDWARE_XIDS = {
    48: "double bit ECC error",
    62: "internal micro-controller halt",
    64: "row remapping failed",
    74: "NVLink error",
    92: "high rate of single bit ECC errors",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "GSP does not answer",
    120: "GSP error",
    140: "unrecovered ECC error",
}
_QUIET = {"GpuIdle", "ApplicationsClocksSetting", "UserDefinedClocks", "None", "All"}
_PREFIX = "nvmlClocksEventReason"


@dataclass(frozen=True, slots=True)
class Health:
    state: str = "ok"
    detail: str = ""


class XidWatch:
    """Collects critical Xid events. One that tells of the hardware stays until the agent restarts: such a GPU
    wants a reset and a look."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._set: Any = None
        self._watched: dict[str, Any] = {}
        self._found: dict[str, Health] = {}

    def poll(self, seen: Iterable[Seen]) -> dict[str, Health]:
        """What has been found so far, by device uuid."""
        devices = list(seen)
        self._watch(devices)
        while self._set is not None and (event := self._next()) is not None:
            self._take(int(event.eventData), event.device, devices)
        return self._found

    def _watch(self, devices: list[Seen]) -> None:
        nvml = self._nvml
        for one in devices:
            if one.device.uuid in self._watched or one.lost:
                continue
            self._watched[one.device.uuid] = one.physical
            try:
                if self._set is None:
                    self._set = nvml.nvmlEventSetCreate()
                nvml.nvmlDeviceRegisterEvents(one.physical, nvml.nvmlEventTypeXidCriticalError, self._set)
            except nvml.NVMLError as error:
                log.info("no Xid events of %s: %s", one.device.uuid, error)

    def _next(self) -> Any:
        try:
            return self._nvml.nvmlEventSetWait(self._set, 0)
        except self._nvml.NVMLError:
            return None  # a timeout: nothing has happened

    def _take(self, xid: int, handle: Any, devices: list[Seen]) -> None:
        log.warning("Xid %d", xid)
        text = LOST_XIDS.get(xid) or HARDWARE_XIDS.get(xid)
        if text is None:
            return
        state = "lost" if xid in LOST_XIDS else "degraded"
        for one in devices:
            if self._same(one.physical, handle):
                self._found[one.device.uuid] = Health(state, f"Xid {xid}: {text}")

    def _same(self, one: Any, other: Any) -> bool:
        """An event's handle is a pointer of its own; the uuid behind it is what counts."""
        if one is other:
            return True
        try:
            return bool(self._nvml.nvmlDeviceGetUUID(one) == self._nvml.nvmlDeviceGetUUID(other))
        except self._nvml.NVMLError:
            return False


def health_of(nvml: Any, read: Read, seen: Seen, xid: Health | None) -> Health:
    if xid is not None:
        return xid
    if seen.mig_without_instance:
        return Health("degraded", "MIG mode is on but no instance exists: nothing can run here")
    remapped = read(nvml.nvmlDeviceGetRemappedRows, seen.physical)
    if remapped is not None:
        _corrected, _uncorrected, pending, failed = remapped
        if failed:
            return Health("degraded", "memory row remapping failed: replace the GPU")
        if pending:
            return Health("degraded", "a memory row remapping waits for a reset")
    elif read(nvml.nvmlDeviceGetRetiredPagesPendingStatus, seen.physical) == nvml.NVML_FEATURE_ENABLED:
        return Health("degraded", "retired memory pages wait for a reset")
    return Health()


def throttle_reasons(nvml: Any, read: Read, handle: Any) -> str:
    """Names of the reasons why the clocks are held down, idling aside."""
    bits = read(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if bits is None:
        return ""
    names = {name.removeprefix(_PREFIX): getattr(nvml, name) for name in dir(nvml) if name.startswith(_PREFIX)}
    active = {name for name, bit in names.items() if isinstance(bit, int) and bit and bits & bit == bit}
    return ",".join(sorted(active - _QUIET))
