"""The trail as a file: CSV for spreadsheets, JSON lines for programs. Read and sent in batches, newest first."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from controlplane.audit.models import AppendOnly, AuditEvent

BATCH = 500
CSV = "text/csv; charset=utf-8"
COLUMNS = (
    "id", "at", "actor", "source", "verb", "subject_type", "subject_id", "subject_name", "reason",
    "before", "after", "detail", "request_id", "address",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Rows = list[dict[str, Any]]


def download(request: HttpRequest, events: AppendOnly, kind: str) -> StreamingHttpResponse:
    """All of `events`; `kind` is a key of KINDS."""
    content_type, to_text = KINDS[kind]
    head = head_of(COLUMNS) if kind == "csv" else ""
    name = f"forebay-audit-{stamp()}.{kind}"
    return stream(request, partial(_batch, events), head=head, to_text=to_text, content_type=content_type, name=name)


def stream(
    request: HttpRequest,
    batch: Callable[[int | None], Rows],
    *,
    head: str,
    to_text: Callable[[Rows], str],
    content_type: str,
    name: str,
) -> StreamingHttpResponse:
    """A file of `head` and what `batch` gives, which is called with the last row's id until it gives no more."""
    plain = getattr(request, "_request", request)  # Django warns of a plain iterator under ASGI, and the other way
    read = _read_async if isinstance(plain, ASGIRequest) else _read
    response = StreamingHttpResponse(read(batch, head, to_text), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response


def stamp() -> str:
    return f"{timezone.now():%Y-%m-%d-%H%M}"


def _read(batch: Callable[[int | None], Rows], head: str, to_text: Callable[[Rows], str]) -> Iterator[str]:
    yield head
    last = None
    while rows := batch(last):
        yield to_text(rows)
        last = rows[-1]["id"]


async def _read_async(
    batch: Callable[[int | None], Rows], head: str, to_text: Callable[[Rows], str]
) -> AsyncIterator[str]:
    yield head
    last = None
    while rows := await sync_to_async(batch)(last):
        yield to_text(rows)
        last = rows[-1]["id"]


def _batch(events: AppendOnly, below: int | None) -> Rows:
    """By the last id seen: short queries, and events that arrive meanwhile shift nothing."""
    rest = events if below is None else events.filter(pk__lt=below)
    return [_facts(event) for event in rest.order_by("-id")[:BATCH]]


def _facts(event: AuditEvent) -> dict[str, Any]:
    facts = {name: getattr(event, name) for name in COLUMNS if name != "actor"}
    facts |= {"at": event.at.isoformat(), "actor": event.actor_name}
    return {name: facts[name] for name in COLUMNS}


def head_of(columns: Sequence[str]) -> str:
    return ",".join(columns) + "\r\n"


def csv_of(rows: Rows) -> str:
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


KINDS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "csv": (CSV, csv_of),
    "jsonl": ("application/jsonl; charset=utf-8", _json_lines),
}
