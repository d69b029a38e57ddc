"""How a stand-in engine acts, and what it says beside the text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.toy_model import Counting, Model, tokens_of


@dataclass
class Behaviour:
    """How the engine acts, settable at any moment."""

    first_s: float = 0.0  # before the first byte
    itl_s: float = 0.0  # between tokens
    status: int = 0  # answer this status instead
    status_body: bytes = b'{"error":{"message":"made to fail","type":"server_error","param":null,"code":500}}'
    hang: bool = False  # take the request and never answer
    frozen: bool = False  # not even /health is answered
    die_after: int = -1  # end badly after the events of this many tokens
    deaths: int = 1 << 30  # so often, after which it is well
    die_how: str = "cut"  # the connection; or "early" (a good end too soon), "error" (an event), "abort", "silent"
    model: Model = field(default_factory=Counting)
    merge: int = 1  # tokens an event
    tells_ids: bool = True  # knows return_token_ids
    context: int = 1 << 20  # tokens
    garbage: bool = False  # answer with what is no HTTP
    close: bool = False  # close each connection after its answer without having said so
    params: Any = ...  # hand over this instead of real kv_transfer_params
    padding: int = 0  # extra bytes per answer or stream chunk
    split: int = 0  # write answers in pieces of this many bytes


def usage(prompt: str, tokens: int) -> dict[str, int]:
    count = len(tokens_of(json.loads(prompt)))
    return {"prompt_tokens": count, "completion_tokens": tokens, "total_tokens": count + tokens}


def metrics(running: int, ended: int) -> bytes:
    """What a drain waits for. The rest is missing, and so unknown."""
    said = {"num_requests_running": running, "num_requests_waiting": 0, "request_success_total": ended,
            "kv_cache_usage_perc": 0.1 * running}  # fmt: skip
    return "".join(f"vllm:{name} {value}\n" for name, value in said.items()).encode()


def error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}
