"""Which splits of a node's GPUs are lawful, and the even ones by name. Splits with roles are in plans.py."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from controlplane.domain.types import DeviceView, DomainError, Problem
from workers.contract import DeviceKind

PRESETS = ("8x1", "4x2", "2x4", "1x8")  # of the usual 8-GPU node; presets_for() gives those of any node
TP_SIZES = (1, 2, 4, 8, 16)


def preset(name: str, gpu_count: int) -> list[list[int]]:
    """ "4x2" on 8 GPUs -> [[0, 1], [2, 3], [4, 5], [6, 7]]: positions in the node's GPUs by index."""
    match = re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,1})", name)
    if match is None:
        raise DomainError(Problem("preset-unknown", f"'{name[:40]}' is not a preset.",
                                  f"Choose one of {', '.join(presets_for(gpu_count))}."))  # fmt: skip
    count, size = int(match[1]), int(match[2])
    if count * size != gpu_count or size not in TP_SIZES:
        raise DomainError(Problem("preset-does-not-fit", f"{name} does not fit a node of {gpu_count} GPUs.",
                                  f"Choose one of {', '.join(presets_for(gpu_count))}."))  # fmt: skip
    return [list(range(start, start + size)) for start in range(0, gpu_count, size)]


def presets_for(gpu_count: int) -> list[str]:
    """The even splits of a node, smallest partitions first."""
    return [f"{gpu_count // size}x{size}" for size in TP_SIZES if gpu_count >= size and gpu_count % size == 0]


def validate_split(devices: Sequence[DeviceView], groups: Sequence[Sequence[int]]) -> list[Problem]:
    """What forbids this split. Groups hold device indices; GPUs that are left out stay without a partition."""
    if not groups:
        return [Problem("split-empty", "The split has no partition.", "Choose a preset or at least one GPU.")]
    by_index = {device.index: device for device in devices}
    problems = _repeats(groups)
    for number, group in enumerate(groups):
        problems += _group(f"Partition {number + 1}", list(group), by_index)
    return problems + _mig_overlaps(groups, by_index)


def _repeats(groups: Sequence[Sequence[int]]) -> list[Problem]:
    counts = Counter(index for group in groups for index in group)
    twice = sorted(index for index, count in counts.items() if count > 1)
    if not twice:
        return []
    return [Problem("split-overlaps", f"GPU {_join(twice)} would lie in more than one place.",
                    "Give each GPU to one partition only.")]  # fmt: skip


def _group(label: str, group: list[int], by_index: dict[int, DeviceView]) -> list[Problem]:
    if not group:
        return [Problem("partition-empty", f"{label} has no GPU.", "Give it one, or leave it out.")]
    unknown = sorted(index for index in group if index not in by_index)
    if unknown:
        return [Problem("gpu-unknown", f"{label} names GPU {_join(unknown)}, which this node does not have.",
                        f"Its GPUs are {_join(sorted(by_index))}.")]  # fmt: skip
    devices = [by_index[index] for index in group]
    return device_problems(label, devices)


def device_problems(label: str, devices: Sequence[DeviceView]) -> list[Problem]:
    """What forbids these devices as one partition, whatever would run on it."""
    problems = []
    if len(devices) not in TP_SIZES and not any(device.kind == DeviceKind.CPU for device in devices):
        problems.append(Problem("tp-size", f"{label} has {len(devices)} GPUs; an engine spans 1, 2, 4, 8 or 16.",
                                "Choose one of those sizes."))  # fmt: skip
    if lost := [device for device in devices if not device.is_usable]:
        problems.append(Problem("gpu-lost", f"{label}: {lost[0].label} is lost{_detail(lost[0])}.",
                                "Repair it, or split the node without it."))  # fmt: skip
    if len({(device.kind, device.name, device.memory_bytes) for device in devices}) > 1:
        problems.append(Problem("gpu-kinds-mixed", f"{label} mixes GPUs of different kinds.",
                                "Put equal GPUs into a partition; the smallest holds back the rest."))  # fmt: skip
    if len(devices) > 1 and any(device.kind == DeviceKind.MIG for device in devices):
        problems.append(Problem("mig-joined", f"{label} joins slices of GPUs (MIG), which cannot work together.",
                                "Give each slice a partition of its own."))  # fmt: skip
    return problems


def _mig_overlaps(groups: Sequence[Sequence[int]], by_index: dict[int, DeviceView]) -> list[Problem]:
    chosen = [by_index[index] for group in groups for index in group if index in by_index]
    sliced = {device.mig_parent for device in chosen if device.mig_parent}
    whole = [device for device in chosen if device.uuid in sliced]
    return [Problem("gpu-not-whole", f"{device.label} is used whole and in slices (MIG) at once.",
                    "Use either the GPU or its slices.") for device in whole]  # fmt: skip


def _detail(device: DeviceView) -> str:
    if not device.present:
        return ": its node no longer reports it"
    return f": {device.health_detail}" if device.health_detail else ""


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
