"""What the control plane and a node say to each other of measuring GPUs: a part of the contract.

A measurement that is wanted stands in the spec until its result has arrived; the result stands in every report as long
as the spec asks for it. So neither can get lost, and repeating them costs nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=256)]
Positive = Annotated[float, Meta(ge=0, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class QualifyState(StrEnum):
    """WAITING -> RUNNING -> DONE | FAILED; RUNNING -> WAITING when the GPU is wanted for an engine."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class QualifyWanted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """This GPU is to be measured, once nothing else is on it. `id` is of the run, and never used again."""

    id: Text
    gpu: Text
    soak_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0


class SizeRate(Struct, frozen=True, kw_only=True):
    n: Count
    tflops: Positive
    spread: Positive


class PeerRate(Struct, frozen=True, kw_only=True):
    uuid: Text
    gbs: Positive
    direct: bool  # without the way through the host's memory


class Soak(Struct, frozen=True, kw_only=True):
    """`drift`: how much slower it was at the end than at first, 0.1 = by a tenth. `mismatches`: of `checks` products
    that were not bit for bit the first one."""

    seconds: Positive
    drift: Annotated[float, Meta(ge=-1e6, le=1)]
    checks: Count
    mismatches: Count


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What workers/qualify.py prints. None: not measured; `missing` and `faults` say why."""

    torch: Text = ""
    cuda: Text = ""
    device: Text = ""
    bf16_tflops: Positive | None = None
    bf16_spread: Positive | None = None
    fp32_tflops: Positive | None = None
    memory_gbs: Positive | None = None
    memory_spread: Positive | None = None
    to_device_gbs: Positive | None = None
    to_host_gbs: Positive | None = None
    wrong: Count | None = None  # products that were not what float64 says
    sizes: Annotated[tuple[SizeRate, ...], Meta(max_length=16)] = ()
    peers: Annotated[tuple[PeerRate, ...], Meta(max_length=64)] = ()
    soak: Soak | None = None
    missing: Annotated[tuple[Text, ...], Meta(max_length=32)] = ()
    faults: Annotated[tuple[Text, ...], Meta(max_length=32)] = ()
    seconds: Positive = 0.0


class Qualification(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a measurement that the spec asks for stands. Temperature, throttling and ECC errors are what the agent read
    meanwhile; None: the device does not tell."""

    id: Text
    gpu: Text
    state: QualifyState
    message: Text = ""
    figures: Figures | None = None
    temperature_c: float | None = None  # the highest
    throttle: Text = ""  # reasons, comma separated
    ecc_errors: Count | None = None  # uncorrected ones that came meanwhile
