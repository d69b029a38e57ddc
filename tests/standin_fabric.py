"""What stand-in engines hand over to each other in place of KV blocks, and which requests for them they refuse."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

NOT_FOR_PREFILL = ("stream_options", "n", "best_of", "logprobs", "top_logprobs", "prompt_logprobs")


class Fabric:
    """What the engines of one test know of each other's KV blocks: who issued them, until when, used or not."""

    def __init__(self, secret: str = "standin", lease_s: float = 30.0) -> None:
        self.secret, self.lease_s = secret.encode(), lease_s
        self.pulled: set[str] = set()
        self._issued = 0

    def issue(self, engine_id: str, prompt: str) -> dict[str, Any]:
        self._issued += 1
        params: dict[str, Any] = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [[self._issued]],
            "remote_engine_id": engine_id,
            "remote_request_id": f"{engine_id}-{self._issued}",
            "remote_host": "127.0.0.1",
            "remote_port": 1,
            "tp_size": 1,
            "remote_num_tokens": len(prompt),
            "standin_expires_ms": int((time.time() + self.lease_s) * 1000),
            "standin_prompt": _digest(prompt),
        }
        return {**params, "standin_seal": self._seal(params)}

    def pull(self, params: dict[str, Any], prompt: str) -> str:
        """Use the blocks up; the reason when they may not be used."""
        claims = dict(params)
        seal = claims.pop("standin_seal", "")
        if not hmac.compare_digest(str(seal), self._seal(claims)):
            return "unknown remote blocks"
        if claims["standin_expires_ms"] < time.time() * 1000:
            return "remote blocks expired"
        if claims["standin_prompt"] != _digest(prompt):
            return "remote blocks of another prompt"
        if seal in self.pulled:
            return "remote blocks replayed"
        self.pulled.add(seal)
        return ""

    def _seal(self, claims: dict[str, Any]) -> str:
        return hmac.digest(self.secret, json.dumps(claims, sort_keys=True).encode(), "sha256").hex()


def refusal(fabric: Fabric, body: dict[str, Any], params: dict[str, Any], prompt: str) -> str:
    """Why an engine with these blocks does not take the request; "" where it does."""
    if params.get("do_remote_decode"):
        if body.get("max_completion_tokens", body.get("max_tokens")) != 1 or body.get("stream"):
            return "a prefill must ask for one token, not streamed"
        if "max_completion_tokens" in body and "max_tokens" in body and body["max_tokens"] != 1:
            return "max_tokens contradicts max_completion_tokens"
        if body.get("min_tokens", 0) > 1:
            return "min_tokens must not exceed max_tokens"
        if unfit := [name for name in NOT_FOR_PREFILL if name in body]:
            return f"does not fit a prefill: {unfit}"
    elif params.get("do_remote_prefill"):
        if body.get("n", 1) != 1:
            return "remote blocks serve one sequence"
        return fabric.pull(params, prompt)
    elif params:
        return "kv_transfer_params of neither kind"
    return ""


def _digest(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]
