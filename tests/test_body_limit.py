"""A body that is too large is refused while it arrives."""

from __future__ import annotations

from typing import Any

from controlplane.body_limit import BodyLimit


async def call(limit: int, chunks: list[bytes], length: int | None) -> tuple[list[int], list[dict[str, Any]]]:
    """What the application behind the limit received, in bytes a message, and what was answered."""
    waiting = [{"type": "http.request", "body": c, "more_body": i + 1 < len(chunks)} for i, c in enumerate(chunks)]
    received: list[int] = []
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            received.append(len(message["body"]))
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    await BodyLimit(application, limit)({"type": "http", "headers": headers}, receive, send)
    return received, sent


async def test_a_body_within_the_limit_passes() -> None:
    received, sent = await call(10, [b"12345", b"67890"], 10)

    assert received == [5, 5]
    assert sent[0]["status"] == 200


async def test_a_body_announced_too_large_is_not_read() -> None:
    received, sent = await call(10, [b"x" * 11], 11)

    assert received == []
    assert sent[0]["status"] == 413


async def test_a_body_that_grows_too_large_is_cut_off() -> None:
    received, sent = await call(10, [b"x" * 6, b"x" * 6, b"x" * 6], None)

    assert received == [6]
    assert [m.get("status") for m in sent] == [413, None]
