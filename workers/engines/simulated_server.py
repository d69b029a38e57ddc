"""The stand-in engine's process: /health, /v1/models, /v1/completions, /metrics. Standard library only.

It serves no model: every answer says that it is simulated. Its metrics count what it really served. With sleep mode it
answers the calls of vLLM's development mode as strictly (simulated_sleep.py), behind the same guard.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_BODY = 2**20
# It is run alone, without site-packages: what lies beside it is imported by its own name.
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib would be the dearest import here


def _beside(name: str, folder: str = "") -> Any:
    if (path := os.path.join(HERE, folder)) not in sys.path:  # noqa: PTH118
        sys.path.insert(0, path)
    return importlib.import_module(name)


class State:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.key = options, os.environ.get("VLLM_API_KEY", "")
        self.ready_at = time.monotonic() + options.start_s
        self.lock = threading.Lock()
        self.running = self.requests = self.prompt_tokens = self.tokens = 0
        self.closing = False
        dev_mode = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
        self.guard = _beside("forebay_guard", "guard")
        self.rule = self.guard.Rule(os.environ.get(self.guard.SECRET, ""))
        self.sleep = _beside("simulated_sleep").Sleep(options) if options.enable_sleep_mode and dev_mode else None
        self.held = bytearray(options.gpu_mb * 2**20) if self.sleep is None else b""  # stands for memory of the GPU

    def metrics(self) -> str:
        figures = {
            "num_requests_running": self.running,
            "num_requests_waiting": 0,
            "kv_cache_usage_perc": 0.0,
            "prompt_tokens_total": self.prompt_tokens,
            "generation_tokens_total": self.tokens,
            "request_success_total": self.requests,
        }
        told = "".join(f'vllm:{name}{{engine="simulated"}} {value}\n' for name, value in figures.items())
        return told + (self.sleep.metrics() if self.sleep else "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def do_GET(self) -> None:
        state = self.state
        if self._is_refused():
            return
        if self.path == "/is_sleeping" and state.sleep:
            self._told(*state.sleep.is_sleeping())
        elif self.path == "/health":
            self._send(200 if time.monotonic() >= state.ready_at else 503, b"")
        elif self.path == "/metrics":
            self._send(200, state.metrics().encode(), "text/plain")
        elif self.path == "/v1/models":
            names = [{"id": name, "object": "model"} for name in state.options.served_model_name]
            if self._is_known():
                self._json(200, {"object": "list", "data": names})
        else:
            self._json(404, {"error": {"message": "no such page", "code": 404}})

    def do_DELETE(self) -> None:
        if not self._is_refused():
            self._json(404, {"error": {"message": "no such page", "code": 404}})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, MAX_BODY))
        path, _, query = self.path.partition("?")
        if self._is_refused():
            return
        if self.state.sleep and path in self.state.sleep.CALLS:
            if path == "/sleep":
                self.state.rule.asleep = True  # as the guard has it: from now on, not from the answer on
            self._told(*self.state.sleep.call(path, query, body, self.state))
            return
        if not self._is_known():
            return
        if self.state.closing:
            self._json(500, {"error": {"message": "shutting down", "code": 500}})
        elif self.path != "/v1/completions":
            self._json(404, {"error": {"message": "no such page", "code": 404}})
        else:
            self._complete(json.loads(body))

    def _complete(self, body: dict[str, Any]) -> None:
        state, wanted = self.state, int(body.get("max_tokens") or 16)
        with state.lock:
            state.running += 1
        time.sleep(state.options.token_s * wanted)
        prompt = len(str(body.get("prompt", "")).split())
        with state.lock:
            state.running -= 1
            state.requests += 1
            state.prompt_tokens += prompt
            state.tokens += wanted
        word = self.state.sleep.word() if self.state.sleep else " simulated"
        choice = {"index": 0, "text": word * wanted, "finish_reason": "length"}
        usage = {"prompt_tokens": prompt, "completion_tokens": wanted, "total_tokens": prompt + wanted}
        self._json(200, {"object": "text_completion", "model": body.get("model"), "choices": [choice], "usage": usage})

    def _is_refused(self) -> bool:
        """By the guard, which stands before everything else."""
        path, state, body = self.path.partition("?")[0], self.state, b""
        with state.lock:  # who is let in is inside before anybody asks at the door
            status = state.rule.refusal(path, (self.headers.get("x-forebay-agent") or "").encode())
            if status:
                body = state.guard.why(status)
            elif path == state.guard.DOOR:
                status, body = state.rule.turn_door(self.command)
            elif path.startswith(state.guard.SERVED):
                self.is_inside = True
                state.rule.inside += 1
        if status:
            self._send(status, body, "application/json")
        return bool(status)

    def handle_one_request(self) -> None:
        self.is_inside = False
        try:
            super().handle_one_request()
        finally:
            if self.is_inside:
                with self.state.lock:
                    self.state.rule.inside -= 1

    def _told(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.state.rule.note(self.path.partition("?")[0], status, body)
        self._send(status, body, "application/json")

    def _is_known(self) -> bool:
        if self.state.key and self.headers.get("Authorization") != f"Bearer {self.state.key}":
            self._json(401, {"error": {"message": "wrong key", "code": 401}})
            return False
        return True

    def _json(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged, as with vLLM's own --disable-uvicorn-access-log."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", nargs="+", required=True)
    parser.add_argument("--start-s", type=float, default=0.0, help="seconds until it is healthy")
    parser.add_argument("--token-s", type=float, default=0.0, help="seconds per token")
    parser.add_argument("--exit-after-s", type=float, default=0.0, help="exit with code 3 after so long")
    parser.add_argument("--gpu-mb", type=int, default=0, help="memory that stands for the GPU's, really held")
    parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--sleep-s", type=float, default=0.0, help="seconds to fall asleep")
    parser.add_argument("--wake-s", type=float, default=0.0, help="seconds to wake, and to read weights again")
    parser.add_argument("--leaks", action="store_true", help="asleep, it holds its memory all the same")
    parser.add_argument("--wake-fails", action="store_true", help="it does not wake: out of memory")
    parser.add_argument("--dies-asleep", action="store_true", help="it ends as soon as it sleeps")
    options = parser.parse_args()
    state = Handler.state = State(options)
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"simulated engine on {options.host}:{options.port}", flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    if not ended.wait(options.exit_after_s or None):
        print("simulated fault", flush=True)
        os._exit(3)
    state.closing = True
    deadline = time.monotonic() + 20
    while state.running and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
