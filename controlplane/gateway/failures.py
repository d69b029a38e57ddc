"""How an attempt to serve a request ends when it does not end well."""

from __future__ import annotations

import msgspec

from controlplane.gateway.openai import ApiError, error_body
from controlplane.gateway.table import Engine
from controlplane.gateway.trip import Outcome

REFUSED = "refused by the engine"  # for the record: in its words might be the client's
GUARD = "forebay_guard"  # the type of what the guard in each engine refuses by itself
REJECTED = frozenset({401, 404, 413, 429})
CLIENTS_FAULT = frozenset({400, 413, 415, 422})  # passed on as they are; any other failure is the engine's
GUARDS_WORDS = 4096  # bytes at most


class _Error(msgspec.Struct):
    type: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


class EngineFailed(Exception):
    """An attempt failed before the client got anything. `exclude`: engines not to be tried again for this
    request. `late`: the KV deadline passed. `suspect`: others should avoid the engine for a while. `shut`: its door is,
    for a moment, and that is no failure of anybody."""

    def __init__(
        self,
        engine: Engine,
        message: str,
        *exclude: Engine,
        late: bool = False,
        suspect: bool = True,
        shut: bool = False,
    ) -> None:
        super().__init__(f"{engine.name}: {message}")
        self.engine, self.exclude, self.late, self.suspect, self.shut = engine, exclude, late, suspect, shut


class StreamBroke(Exception):
    """A stream ended badly after the client had got some of it. `said`: the engine's own error event, as JSON."""

    def __init__(self, engine: Engine, message: str, said: bytes = b"") -> None:
        super().__init__(message if said else f"{engine.name}: {message}")
        self.engine, self.said = engine, said


class EngineRefused(Exception):
    """The engine says that the request is wrong, so the client is told, in the engine's words."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status, self.body = status, body

    def told(self) -> bytes:
        """The refusal in OpenAI's form, whatever form it had."""
        try:
            said = msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
            if memoryview(said.get("error", msgspec.Raw(b"")))[:1] == b"{":
                return self.body
        except (ValueError, RecursionError):  # msgspec's errors, and UnicodeDecodeError
            pass
        text = self.body[:500].decode("utf-8", "replace")
        return error_body(text, kind="invalid_request_error", code="refused")


def outcome_of(error: ApiError) -> Outcome:
    """What the record says of a request that ends with it."""
    if error.status in REJECTED or error.code in {"overloaded", "shutting_down"}:
        return Outcome.REJECTED
    return Outcome.ERROR if error.status >= 500 else Outcome.CLIENT_ERROR


def is_shut(status: int, body: bytes) -> bool:
    """Whether it is the engine's guard that refuses: it sleeps, or is about to end."""
    if status != 503 or len(body) > GUARDS_WORDS:
        return False
    try:
        return msgspec.json.decode(body, type=_Refusal).error.type == GUARD
    except (ValueError, RecursionError):
        return False


def require_open(engine: Engine, status: int, body: bytes) -> None:
    """Raise EngineFailed where the answer is that of a shut door."""
    if is_shut(status, body):
        raise EngineFailed(engine, "it sleeps, or is about to end", suspect=False, shut=True)


def raise_for(engine: Engine, prefill: Engine | None, status: int, body: bytes) -> None:
    """Raise what an answer other than 200 means."""
    if status in CLIENTS_FAULT:
        raise EngineRefused(status, body)
    require_open(engine, status, body)
    message = f"it answered {status}: {body[:200].decode('utf-8', 'replace')}"
    # A decode that failed may have failed for want of the prefill's blocks: leave that prefill out, and
    # prefer another decode.
    raise EngineFailed(engine, message, prefill or engine)
