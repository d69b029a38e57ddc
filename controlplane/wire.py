"""HTTP of the web process: uvicorn's own protocol over the same parser, in which a report that says nothing new takes
no task and one write. Whatever else comes goes its way as if this were not here. Run with `--http
controlplane.wire:Wire`; without it reports are answered all the same, for more CPU."""

from __future__ import annotations

from typing import Any, Protocol

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

log = structlog.get_logger(__name__)

DOOR = "door"  # where the lifespan's state holds it
_JSON = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"


class AtOnce(Protocol):
    """Who answers posts to `path` of up to `most_bytes`: with JSON, or None if that takes longer. Never waits."""

    path: bytes
    most_bytes: int

    def at_once(self, body: bytes, authorization: str) -> bytes | None: ...


class Wire(HttpToolsProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._door: AtOnce | None = self.app_state.get(DOOR)
        self._held: bytearray | None = None  # what came yet of a body that may be answered at once

    def on_headers_complete(self) -> None:
        if self._door is not None and self.url == self._door.path and self._is_plain():
            self._held = bytearray()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
            return
        self._held += body
        if self._door is not None and len(self._held) > self._door.most_bytes:
            self._let_go()

    def on_message_complete(self) -> None:
        if self._held is not None:
            if (answer := self._answer(bytes(self._held))) is not None:
                self._held = None
                self._send(answer)
                return
            self._let_go()
        super().on_message_complete()

    def shutdown(self) -> None:
        if self._held is not None:  # half a report is a request under way
            self._let_go()
        super().shutdown()

    def _is_plain(self) -> bool:
        """A post on a kept connection where nothing else is under way."""
        return (
            self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and self.limit_concurrency is None
            and not self.root_path
        )

    def _answer(self, body: bytes) -> bytes | None:
        assert self._door is not None
        authorization = next((value for name, value in self.headers if name == b"authorization"), b"")
        try:
            return self._door.at_once(body, authorization.decode("latin-1"))
        except Exception:
            log.exception("a report could not be answered at once")
            return None  # the long way meets it again, and answers that it failed

    def _let_go(self) -> None:
        """The request is like any other from here on."""
        body, self._held = bytes(self._held or b""), None
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _send(self, answer: bytes) -> None:
        head = [STATUS_LINE[200]]
        for name, value in self.server_state.default_headers:
            head += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*head, _JSON % len(answer), answer)))
        self.on_response_complete()
