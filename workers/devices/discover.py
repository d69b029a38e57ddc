"""Which devices this node offers: FOREBAY_DEVICES = auto | nvidia | cpu | simulated:N."""

from __future__ import annotations

from workers.config import Config, Settings
from workers.devices import Source
from workers.devices.cpu import CpuSlots
from workers.devices.nvml import NoNvidia, Nvml
from workers.devices.simulated import SimulatedDevices


def discover(settings: Settings, config: Config) -> Source:
    """GPUs if there are any. CPU slots only where no NVIDIA driver is installed: a GPU host whose driver is broken
    must say so, and not quietly serve from its processor."""
    wanted = settings.devices
    if wanted.startswith("simulated:"):
        return SimulatedDevices(int(wanted.partition(":")[2]), config.name, settings.home.path / "faults")
    if wanted == "cpu":
        return CpuSlots(settings.cpu_slots, config.instance)
    try:
        nvml = Nvml()
    except NoNvidia as reason:
        slots = settings.cpu_slots if wanted == "auto" else 0
        return CpuSlots(slots, config.instance, str(reason))
    if wanted == "auto" and nvml.is_working and not nvml.devices():
        return CpuSlots(settings.cpu_slots, config.instance, f"{nvml.driver()}, but no GPU")
    return nvml
