"""Which decode engines cannot go on with a prefill engine whose process was replaced, and must be restarted.

What is known, by engine version and connector. A version that nobody reported trouble with is left alone: the gateway
verifies each new pair with a real request, so what is not known here shows before clients are sent there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.pairing import partners
from controlplane.domain.types import PartitionView, Role

Version = tuple[int, int, int]
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Known:
    """Trouble of versions from `first` to before `fixed` (None: not fixed in any version that we know)."""

    connector: str
    first: Version
    fixed: Version | None
    why: str
    device: str = ""  # part of the device's name, where it is of these devices only

    def holds(self, connector: str, version: Version, devices: Sequence[str]) -> bool:
        affected = self.first <= version and (self.fixed is None or version < self.fixed)
        there = not self.device or any(self.device in name for name in devices)
        return connector == self.connector and affected and there


# Sources, as of September 2026:
# 1. vllm-project/vllm#49238, ai-dynamo/nixl#1986: decode segfaults in loadRemoteMD at its first transfer from a prefill
#    that was restarted at the same address. Reported of 0.25.0 and 0.25.1 (NIXL 1.3.1), its signature of 0.26.1rc1
#    (NIXL 1.3.2); the fix went into NIXL after 1.3.2. 0.32.0 lets go of an address's engine before (vllm#50047), and
#    was measured by us with NIXL 1.5.1 to find a restarted prefill again. What lies between is taken for affected.
# 2. vllm-project/vllm#58063: on multi-node NVLink (GB200) decode keeps the memory of the prefill that is gone mapped
#    until it shakes hands with a new one, which cannot start for lack of that memory. Reported of 0.28.1rc1; open.
KNOWN = (
    Known("NixlConnector", (0, 25, 0), (0, 32, 0), "may crash at its first transfer from a restarted prefill engine"),
    Known("NixlConnector", (0, 28, 1), None, "keeps the memory of a prefill engine that is gone", device="GB200"),
)


@dataclass(frozen=True, slots=True)
class Recycle:
    """A decode engine to restart, and why, for people."""

    partition: int
    name: str
    text: str


def recycles(decode: PartitionView, kv_connector: str) -> Recycle | None:
    """Whether this decode engine must be restarted once a prefill engine that it pulled from was replaced by a new
    process. None: it goes on, or nothing is known against it."""
    version = _version(decode.engine_version)
    devices = [gpu.name for gpu in decode.gpus]
    for known in KNOWN:
        if version is not None and known.holds(kv_connector, version, devices):
            text = f"{decode.label} must be restarted: engine {decode.engine_version} {known.why}."
            return Recycle(decode.id, decode.label, text)
    return None


def to_recycle(prefill: PartitionView, kv_connector: str, peers: Sequence[PartitionView]) -> list[Recycle]:
    """The decode engines among `peers` to restart once the engine of `prefill`, as it is now, has been replaced."""
    if prefill.deployment is None or prefill.role is not Role.PREFILL or not prefill.has_process:
        return []
    decodes = partners(prefill, prefill.deployment, Role.PREFILL, peers)
    found = [recycles(decode, kv_connector) for decode in decodes if decode.has_process]
    return [recycle for recycle in found if recycle is not None]


def _version(text: str) -> Version | None:
    """Of "0.25.1", "v0.28.1rc1.dev580+g385dce36b"; None for what is no version."""
    found = _VERSION.match(text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None
