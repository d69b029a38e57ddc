"""The trail as a file: CSV for spreadsheets, JSON lines for programs. Read and sent in batches, newest first."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from controlplane.audit.models import AppendOnly, AuditEvent

BATCH = 500
COLUMNS = (
    "id", "at", "actor", "source", "verb", "subject_type", "subject_id", "subject_name", "reason",
    "before", "after", "detail", "request_id", "address",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Rows = list[dict[str, Any]]


def download(request: HttpRequest, events: AppendOnly, kind: str) -> StreamingHttpResponse:
    """All of `events`; `kind` is a key of KINDS."""
    content_type, head, to_text = KINDS[kind]
    plain = getattr(request, "_request", request)  # Django warns of a plain iterator under ASGI, and the other way
    read = _read_async if isinstance(plain, ASGIRequest) else _read
    response = StreamingHttpResponse(read(events, head, to_text), content_type=content_type)
    name = f"forebay-audit-{timezone.now():%Y-%m-%d-%H%M}.{kind}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response


def _read(events: AppendOnly, head: str, to_text: Callable[[Rows], str]) -> Iterator[str]:
    yield head
    below = None
    while rows := _batch(events, below):
        yield to_text(rows)
        below = rows[-1]["id"]


async def _read_async(events: AppendOnly, head: str, to_text: Callable[[Rows], str]) -> AsyncIterator[str]:
    yield head
    below = None
    while rows := await sync_to_async(_batch)(events, below):
        yield to_text(rows)
        below = rows[-1]["id"]


def _batch(events: AppendOnly, below: int | None) -> Rows:
    """By the last id seen: short queries, and events that arrive meanwhile shift nothing."""
    rest = events if below is None else events.filter(pk__lt=below)
    return [_facts(event) for event in rest.order_by("-id")[:BATCH]]


def _facts(event: AuditEvent) -> dict[str, Any]:
    facts = {name: getattr(event, name) for name in COLUMNS if name != "actor"}
    facts |= {"at": event.at.isoformat(), "actor": event.actor_name}
    return {name: facts[name] for name in COLUMNS}


def _csv(rows: Rows) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([_cell(value) for value in row.values()] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> str:
    """A spreadsheet runs what begins like a formula, and what people and agents write may: a quote makes it text."""
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json_lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


KINDS: dict[str, tuple[str, str, Callable[[Rows], str]]] = {
    "csv": ("text/csv; charset=utf-8", ",".join(COLUMNS) + "\r\n", _csv),
    "jsonl": ("application/jsonl; charset=utf-8", "", _json_lines),
}
