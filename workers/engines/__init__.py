"""What the agent needs of an engine: how it is started, whether it serves, what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx

from workers.contract import Device, EngineSample, ReplicaSpec


class CannotStart(Exception):
    """The engine cannot be started as things are; the message tells a person what to change."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A replica with what the node adds to it."""

    spec: ReplicaSpec
    devices: tuple[Device, ...]
    host: str  # where it listens
    address: str  # where other nodes reach it
    port: int
    side_port: int
    cores: int  # what its CPU slots amount to; 0 on accelerators
    sockets: str = ""  # a folder for what its own processes share; "": the host's for temporary files
    secret: str = ""  # what the agent shows its guard; "": nobody can
    can_sleep: bool = False  # it is to be able to


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: Mapping[str, str]


class Engine(Protocol):
    def version(self) -> str:
        """Of the program this node would start; "" when it cannot be told."""

    def command(self, launch: Launch) -> Command:
        """Raises CannotStart."""

    def is_ready(self, client: httpx.Client, url: str, spec: ReplicaSpec) -> bool:
        """Whether it answers a request, which is more than being healthy."""

    def sample(self, client: httpx.Client, url: str) -> EngineSample | None:
        """Its figures; None when it does not answer."""
