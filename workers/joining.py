"""What a node and the control plane say to each other when it joins. Imports nothing of ours."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0)]
Secret = Annotated[str, Meta(max_length=512)]


class JoinRequest(Struct, frozen=True, kw_only=True):
    token: Secret
    name: Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
    address: Text  # where other nodes and the gateway reach this node's engines
    instance: Text
    agent_version: Text
    at: float


class JoinReply(Struct, frozen=True, kw_only=True):
    node: Count
    name: Text
    node_token: Secret
    broker_url: Secret  # "" when the broker is not offered to nodes: reports alone then carry the specs
    queue: Text
    period_s: float
    at: float
