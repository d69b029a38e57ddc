"""A report as it is read first: its devices, a third of it, are JSON still, and nearly always those of the last one."""

from __future__ import annotations

import msgspec

from workers.contract import Device, NodeReport

_devices = msgspec.json.Decoder(tuple[Device, ...]).decode
_encode = msgspec.json.Encoder().encode


class Outline(NodeReport, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    devices: msgspec.Raw = msgspec.Raw(b"[]")


class Devices:
    """Those that were written of a node, to be compared with what its agent says."""

    __slots__ = ("_as_said", "_written")

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self._written = _encode(devices)
        self._as_said = b""  # these, as the agent writes them

    def are(self, devices: tuple[Device, ...]) -> bool:
        return _encode(devices) == self._written

    def are_in(self, outline: Outline) -> bool:
        said = bytes(outline.devices)
        if said == self._as_said:
            return True
        try:
            is_so = self.are(_devices(said))
        except msgspec.DecodeError:
            return False
        if is_so:
            self._as_said = said
        return is_so
