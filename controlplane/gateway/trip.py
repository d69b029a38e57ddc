"""What is noted of one request while it is served; the record is made of it when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from os import urandom

from controlplane.gateway.openai import Usage
from controlplane.gateway.spans import Trace

STREAM = "text/event-stream; charset=utf-8"
MOST = 2**31 - 1  # what a column of the records takes


class Outcome(StrEnum):
    OK = "ok"
    CLIENT_ERROR = "client_error"
    ERROR = "error"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


@dataclass(slots=True)
class Trip:
    """Times are of the event loop's clock, in seconds; the end is the moment `ended` is set."""

    kind: str
    at: float  # unix
    began: float
    id: str = field(default_factory=lambda: "req-" + urandom(12).hex())
    key: int | None = None
    deployment: str = ""
    streamed: bool = False
    outcome: str = Outcome.ERROR
    status: int = 500
    error: str = ""
    path: str = ""
    prefill: str = ""
    decode: str = ""
    attempts: int = 0
    continued: int = 0  # times that its stream went on on another engine
    continued_from: str = ""  # the engines it left, in their order
    kv_late: int = 0
    queued_s: float = 0.0  # for room at an engine
    held_s: float = 0.0  # until its model was woken
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    prefill_began: float = 0.0
    prefilled: float = 0.0  # prefill's answer came
    first: float = 0.0  # first event of the answer
    last: float = 0.0
    events: int = 0
    ended: float = 0.0
    trace: Trace | None = None  # where traces are noted

    def take_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.prompt_tokens = bounded(usage.prompt_tokens)
            self.completion_tokens = bounded(usage.completion_tokens)
            self.cached_tokens = bounded(usage.cached_tokens)

    def go_on(self, engine: str) -> None:
        """Its stream goes on on `engine`."""
        self.continued += 1
        self.continued_from = ", ".join([*([self.continued_from] if self.continued_from else []), self.decode])
        self.decode = engine

    @property
    def arrived(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def held_ms(self) -> float | None:
        """None where an engine was there when it came."""
        return self.held_s * 1e3 if self.held_s else None

    @property
    def prefill_ms(self) -> float | None:
        return (self.prefilled - self.prefill_began) * 1e3 if self.prefilled else None

    @property
    def transfer_ms(self) -> float | None:
        return (self.first - self.prefilled) * 1e3 if self.prefilled and self.first else None

    @property
    def ttft_ms(self) -> float | None:
        return (self.first - self.began) * 1e3 if self.first else None

    @property
    def itl_ms(self) -> float | None:
        """Mean time between tokens; of the events where the tokens are not told."""
        gaps = (self.completion_tokens or self.events) - 1
        return (self.last - self.first) * 1e3 / gaps if self.first and gaps > 0 else None

    @property
    def total_ms(self) -> float:
        return (self.ended - self.began) * 1e3

    def early_headers(self) -> dict[str, str]:
        """Of a stream that is begun before it is known who serves it."""
        return {"content-type": STREAM, "server": "forebay", "x-request-id": self.id}

    def headers(self, now: float, content_type: str) -> dict[str, str]:
        """What the response tells of how it was served; steps not yet over are not in it."""
        steps = {"wake": self.held_ms, "prefill": self.prefill_ms, "transfer": self.transfer_ms, "ttft": self.ttft_ms}
        if not self.first:
            steps["total"] = (now - self.began) * 1e3
        headers = {
            "content-type": content_type,
            "server": "forebay",
            "x-request-id": self.id,
            "x-forebay-path": self.path,
            "x-forebay-decode": self.decode,
            "server-timing": ", ".join([f"{name};dur={ms:.1f}" for name, ms in steps.items() if ms is not None]),
        }
        if self.prefill:
            headers["x-forebay-prefill"] = self.prefill
        return headers


def bounded(count: int | None) -> int | None:
    """A count that an engine told, as one that can be written and added up."""
    return None if count is None else min(max(count, 0), MOST)
