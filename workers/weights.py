"""What the control plane and a node say to each other of the weights that lie on the node: a part of the contract.

A report always carries the mark of what is held. The list itself, which may be long and seldom changes, comes until an
answer has taken it, and again when an answer asks for it. What is to be fetched stands in the spec; how what is not
there yet stands is in every report, and the rest is among what is held.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

LONGEST_SOURCE = 1024
Text = Annotated[str, Meta(max_length=256)]
Source = Annotated[str, Meta(max_length=LONGEST_SOURCE)]
Bytes = Annotated[int, Meta(ge=0, le=2**60)]

MOST = 512  # models that one node tells of
MOST_FETCHES = 32  # that one node is asked for


class WeightsState(StrEnum):
    """COMPLETE: every file is there and as long as it must be. PARTIAL: some are missing or cut off."""

    COMPLETE = "complete"
    PARTIAL = "partial"


class Weights(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The weights of one model on the node. `source`: a folder, or a Hugging Face repository id with the commit and
    the branches that it is known by. `total_bytes`: what they come to when all are there; None: not known. `used_at`:
    when an engine was last seen to use them, by the agent's clock in unix seconds; 0: never seen. `checked_at`: when
    the agent that fetched them had compared every file with what the hub says of it; 0: they came another way."""

    source: Source
    revisions: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    state: WeightsState
    bytes: Bytes = 0
    total_bytes: Bytes | None = None
    used_at: Annotated[float, Meta(ge=0, le=1e12)] = 0.0
    message: Text = ""
    checked_at: Annotated[float, Meta(ge=0, le=1e12)] = 0.0


class WeightsReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that the node knows to lie on it. `left_out`: so many more models, or folders that were not looked into."""

    models: Annotated[tuple[Weights, ...], Meta(max_length=MOST)] = ()
    left_out: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0

    def mark(self) -> str:
        """Equal for equal ones."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


class FetchState(StrEnum):
    """WAITING -> FETCHING -> gone, for it lies there; FETCHING -> FAILED -> WAITING after a while."""

    WAITING = "waiting"
    FETCHING = "fetching"
    FAILED = "failed"


class FetchWanted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """These weights shall lie on the node, brought there ahead of their use. `source`: a Hugging Face repository id.
    Which comes first stands first."""

    source: Source
    revision: Text = ""


class Fetching(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one that is wanted, and does not lie there yet, stands. `bytes` of `total_bytes` are there: told seldom, as
    they grow. None: the hub was not asked yet."""

    source: Source
    revision: Text = ""
    state: FetchState
    bytes: Bytes = 0
    total_bytes: Bytes | None = None
    message: Text = ""


class FetchReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`room_bytes`: what all fetched weights may come to on this node, by its cap and its disk, in whole GiB; None:
    not known. `why_not`: why nothing is fetched here, "" where it is."""

    fetches: Annotated[tuple[Fetching, ...], Meta(max_length=MOST_FETCHES)] = ()
    room_bytes: Bytes | None = None
    why_not: Text = ""
