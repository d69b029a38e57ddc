"""What the OpenAPI document says before its first route."""

from __future__ import annotations

from typing import Any

TEXT = """\
Models, GPU nodes, partitions, assignments and live state of a Forebay control plane. [Back to it](/).

**Login.** `POST tokens` with a username and password gives a token; send it as `Authorization: Token ...`. \
In a browser that is logged in, this page works as it is.

**Errors** are problem documents (RFC 9457, `application/problem+json`): `problems` names each thing that is wrong \
and how to mend it. Fields and parameters that are not known are refused by name.

**Writes** take an `Idempotency-Key` header: sent again with the same key, a request is answered again, not done again.

**Lists** come in pages: follow `next`. **Null** means unknown, never zero. Times are ISO 8601.
"""

TAGS = {
    "live": "The fleet as it is now, samples over time, logs.",
    "nodes": "Hosts, each with one agent.",
    "brake": "Whether so many nodes are silent that nothing is rescheduled by itself.",
    "gpus": "Accelerators and CPU slots, as the agents report them.",
    "partitions": "Sets of GPUs of a node, and what is assigned to them.",
    "changes": "Several assignments at once: previewed, applied step by step, undone.",
    "replicas": "The engines that run.",
    "models": "Registered weights and their facts.",
    "deployments": "How models are served.",
    "requests": "What went through the gateway, one record a request.",
    "demand": "What was asked of each deployment, by minute.",
    "pool": "The slots of sporadic models: who is in which, and who waits.",
    "activations": "Models that were asked for while nothing served them, and what came of it.",
    "capacity": "How many models are active at once, how many will be, and what to hold ready.",
    "scaling": "How many engines each role of a dedicated deployment has and shall have, and plans to get there.",
    "profiles": "What engines were measured to do, by model and GPU.",
    "profile-runs": "Measuring running engines.",
    "events": "Who changed what, when and why, and what agents saw.",
    "alerts": "What the rules find wrong, now and in the last 90 days.",
    "silences": "What nobody is told of for a time.",
    "alert-rules": "What alerts come from, with their limits.",
    "alert-targets": "Where alerts are sent. Admins only.",
    "keys": "Keys that open the gateway. Admins only.",
    "teams": "Who shares a budget, and what is theirs.",
    "prices": "What an hour of a node's GPU costs.",
    "usage": "Whose the GPUs' time was, and what it cost.",
    "join-tokens": "Tokens that let a host join, once. Admins only.",
    "service-accounts": "Accounts of programs, and their tokens. Admins only.",
    "access": "Tokens for this API, and who I am.",
    "system": "Health and versions.",
}


def introduce(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: add the text, and the tags in the order in which they are shown."""
    result["info"]["description"] = TEXT
    result["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    return result
