"""The stand-in's sleep: the states, calls and answers of vLLM 0.32's development mode, without a GPU. Standard library.

What it holds of "the GPU" is memory of its own process, touched and given back, so that a device that counts its
engines' memory sees it go. It is stricter than vLLM where that hides a mistake: asleep at level 2 and woken without
its weights read again it answers nonsense, as vLLM does, and out of order the calls fail.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from typing import Any
from urllib.parse import parse_qs

TAGS = frozenset({"weights", "kv_cache"})
Answer = tuple[int, object]


class Sleep:
    CALLS = frozenset({"/sleep", "/wake_up", "/collective_rpc"})

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._lock = options, threading.Lock()
        self._asleep: set[str] = set()
        self._level = 0
        self._has_weights = True
        self._memory = self._allocate()

    def is_sleeping(self) -> Answer:
        return 200, {"is_sleeping": bool(self._asleep)}

    def word(self) -> str:
        return " simulated" if self._has_weights else " nonsense"

    def metrics(self) -> str:
        states = {
            "awake": not self._asleep,
            "weights_offloaded": self._level == 1 and bool(self._asleep),
            "discard_all": self._level == 2 and bool(self._asleep),
        }
        form = 'vllm:engine_sleep_state{engine="simulated",sleep_state="%s"} %d\n'
        return "".join(form % (name, value) for name, value in states.items())

    def call(self, path: str, query: str, body: bytes, state: Any) -> Answer:
        with self._lock:
            if path == "/sleep":
                return self._sleep(parse_qs(query), state)
            if path == "/wake_up":
                return self._wake(parse_qs(query).get("tags", []))
            return self._rpc(body)

    def _sleep(self, query: dict[str, list[str]], state: Any) -> Answer:
        level, mode = query.get("level", ["1"])[0], query.get("mode", ["abort"])[0]
        if level not in {"0", "1", "2"} or mode not in {"abort", "wait", "keep"}:
            return 422, {"detail": "level is 0 to 2, mode is abort, wait or keep"}
        while mode == "wait" and state.running:
            time.sleep(0.01)
        if not self._asleep and level != "0":
            time.sleep(self._options.sleep_s)
            self._level, self._asleep = int(level), set(TAGS)
            self._has_weights = level == "1"
            if not self._options.leaks:
                self._memory = b""
            if self._options.dies_asleep:
                threading.Timer(0.3, os._exit, (9,)).start()
        return 200, {"status": "sleeping", "level": int(level)}

    def _wake(self, tags: list[str]) -> Answer:
        if self._options.wake_fails and self._asleep:
            return 500, {"error": {"message": "CUDA Error: out of memory", "code": 500}}
        if self._asleep and set(tags or self._asleep) <= self._asleep:
            time.sleep(self._options.wake_s)
            self._asleep -= set(tags or self._asleep)
            if not self._asleep:
                self._memory = self._allocate()
        return 200, {"status": "sleeping" if self._asleep else "awake", "tags": tags or None}

    def _rpc(self, body: bytes) -> Answer:
        try:
            method = json.loads(body)["method"]
        except (ValueError, KeyError, TypeError):
            return 400, {"detail": "Missing 'method' in request body"}
        if method != "reload_weights":
            return 500, {"error": {"message": f"no method {method!r}", "code": 500}}
        if "weights" in self._asleep:
            return 500, {"error": {"message": "the weights' memory is not mapped", "code": 500}}
        time.sleep(self._options.wake_s)
        self._has_weights = True
        return 200, {"results": [None]}

    def _allocate(self) -> bytes | bytearray:
        return bytearray(b"\1") * (self._options.gpu_mb * 2**20) if self._options.gpu_mb else b""
