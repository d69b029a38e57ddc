"""Which NVIDIA devices are there: whole GPUs, and MIG devices as what they are, with their NVLink peers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import psutil

from workers.contract import Device, DeviceKind

log = logging.getLogger(__name__)
MIG_INDEX = 1000  # MIG device m of GPU n has index 1000 + 100 n + m: after every whole GPU, and stable


@dataclass(slots=True)
class Seen:
    """A device with the handles to read it by. `physical` is the GPU's own, for a MIG device its parent's."""

    device: Device
    handle: Any
    physical: Any
    lost: str = ""
    mig_without_instance: bool = False


@dataclass(frozen=True, slots=True)
class _Gpu:
    index: int
    handle: Any
    uuid: str
    name: str
    pci: str
    memory_bytes: int


def inventory(nvml: Any) -> dict[str, Seen]:
    """Every device by uuid. A GPU that cannot be read is left out; the caller knows it from before, or never did."""
    gpus = [gpu for index in range(nvml.nvmlDeviceGetCount()) if (gpu := _gpu(nvml, index))]
    peers = _peers(nvml, gpus)
    found: dict[str, Seen] = {}
    for gpu in gpus:
        slices = _mig_devices(nvml, gpu)
        if slices:
            found |= {seen.device.uuid: seen for seen in slices}
        else:
            found[gpu.uuid] = _whole(nvml, gpu, peers.get(gpu.uuid, ()))
    return found


def _gpu(nvml: Any, index: int) -> _Gpu | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        return _Gpu(
            index,
            handle,
            _text(nvml.nvmlDeviceGetUUID(handle)),
            _text(nvml.nvmlDeviceGetName(handle)),
            _text(nvml.nvmlDeviceGetPciInfo(handle).busId),
            _memory(nvml, handle),
        )
    except nvml.NVMLError as error:
        log.warning("GPU %d cannot be read: %s", index, error)
        return None


def _memory(nvml: Any, handle: Any) -> int:
    """GPUs that share the host's memory do not tell of any: the host's is theirs."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
            return int(psutil.virtual_memory().total)
        if error.value == nvml.NVML_ERROR_NO_PERMISSION:
            return 0
        raise


def _whole(nvml: Any, gpu: _Gpu, peers: tuple[str, ...]) -> Seen:
    device = Device(
        uuid=gpu.uuid,
        index=gpu.index,
        kind=DeviceKind.NVIDIA,
        name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        pci=gpu.pci,
        peers=peers,
    )
    return Seen(device, gpu.handle, gpu.handle, mig_without_instance=_mig_enabled(nvml, gpu.handle))


def _mig_enabled(nvml: Any, handle: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return False  # GPUs without MIG say that they do not support the question
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _mig_devices(nvml: Any, gpu: _Gpu) -> list[Seen]:
    if not _mig_enabled(nvml, gpu.handle):
        return []
    return [seen for slot in range(_mig_slots(nvml, gpu)) if (seen := _mig_device(nvml, gpu, slot))]


def _mig_slots(nvml: Any, gpu: _Gpu) -> int:
    try:
        return int(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle))
    except nvml.NVMLError:
        return 0


def _mig_device(nvml: Any, gpu: _Gpu, slot: int) -> Seen | None:
    try:
        handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, slot)
        device = Device(
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            index=MIG_INDEX + 100 * gpu.index + slot,
            kind=DeviceKind.MIG,
            name=_text(nvml.nvmlDeviceGetName(handle)),
            memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            mig_parent=gpu.uuid,
            pci=gpu.pci,
        )
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_NOT_FOUND:  # an empty slot
            log.warning("MIG device %d of GPU %d cannot be read: %s", slot, gpu.index, error)
        return None
    return Seen(device, handle, gpu.handle)


def _peers(nvml: Any, gpus: list[_Gpu]) -> dict[str, tuple[str, ...]]:
    """Who reaches whom over NVLink: directly, or because both hang on NVSwitches."""
    by_pci = {gpu.pci.lower(): gpu.uuid for gpu in gpus}
    direct: dict[str, set[str]] = {gpu.uuid: set() for gpu in gpus}
    switched: set[str] = set()
    for gpu in gpus:
        for link in range(nvml.NVML_NVLINK_MAX_LINKS):
            remote = _remote(nvml, gpu.handle, link)
            if remote is None:
                continue
            if (uuid := by_pci.get(remote.lower())) is not None:
                direct[gpu.uuid].add(uuid)
            else:
                switched.add(gpu.uuid)  # the far end is no GPU of this host: a switch
    for uuid in switched:
        direct[uuid] |= switched - {uuid}
    return {uuid: tuple(sorted(others)) for uuid, others in direct.items()}


def _remote(nvml: Any, handle: Any, link: int) -> str | None:
    """The PCI address at the far end of an active link."""
    try:
        if nvml.nvmlDeviceGetNvLinkState(handle, link) != nvml.NVML_FEATURE_ENABLED:
            return None
        return _text(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)
    except nvml.NVMLError:
        return None  # no NVLink, or no such link


def _text(value: Any) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value))[:256]
