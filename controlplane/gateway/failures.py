"""How an attempt to serve a request ends when it does not end well."""

from __future__ import annotations

import msgspec

from controlplane.gateway.openai import ApiError, error_body
from controlplane.gateway.table import Engine
from controlplane.gateway.trip import Outcome

REFUSED = "refused by the engine"  # for the record: in its words might be the client's
REJECTED = frozenset({401, 404, 413, 429})
CLIENTS_FAULT = frozenset({400, 413, 415, 422})  # passed on as they are; any other failure is the engine's


class EngineFailed(Exception):
    """An attempt failed before the client got anything. `exclude`: engines not to be tried again for this
    request. `late`: the KV deadline passed. `suspect`: others should avoid the engine for a while."""

    def __init__(self, engine: Engine, message: str, *exclude: int, late: bool = False, suspect: bool = True) -> None:
        super().__init__(f"{engine.name}: {message}")
        self.engine, self.exclude, self.late, self.suspect = engine, exclude, late, suspect


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
        except (msgspec.DecodeError, RecursionError):
            pass
        text = self.body[:500].decode("utf-8", "replace")
        return error_body(text, kind="invalid_request_error", code="refused")


def outcome_of(error: ApiError) -> Outcome:
    """What the record says of a request that ends with it."""
    if error.status in REJECTED or error.code in {"overloaded", "shutting_down"}:
        return Outcome.REJECTED
    return Outcome.ERROR if error.status >= 500 else Outcome.CLIENT_ERROR


def raise_for(engine: Engine, prefill: Engine | None, status: int, body: bytes) -> None:
    """Raise what an answer other than 200 means."""
    if status in CLIENTS_FAULT:
        raise EngineRefused(status, body)
    message = f"it answered {status}: {body[:200].decode('utf-8', 'replace')}"
    # A decode that failed may have failed for want of the prefill's blocks: leave that prefill out, and
    # prefer another decode.
    raise EngineFailed(engine, message, prefill.id if prefill else engine.id)
