"""Problem documents (RFC 9457): the one shape of every error of the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, JsonResponse
from rest_framework.permissions import SAFE_METHODS

MEDIA_TYPE = "application/problem+json"
TYPES = "urn:forebay:problem:"
UNCHANGED = "Nothing was changed: the request was refused before it took effect."


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is wrong. `field` is a path into what was sent, "" when it is not about one field."""

    code: str
    message: str
    fix: str = ""
    field: str = ""
    forceable: bool = False

    def as_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = {"code": self.code, "message": self.message, "fix": self.fix}
        if self.field:
            body["field"] = self.field
        if self.forceable:
            body["forceable"] = True
        return body


@dataclass(frozen=True, slots=True)
class Document:
    """`before_effect`: the error is one that leaves everything as it was."""

    kind: str
    title: str
    status: int
    detail: str
    problems: list[Entry] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    before_effect: bool = True
    more: dict[str, Any] = field(default_factory=dict)  # members of this kind of problem alone

    def response(self, request: HttpRequest) -> JsonResponse:
        """Rendered here and not by the view: an error must not depend on the format the client asked for."""
        body: dict[str, Any] = {
            "type": TYPES + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "problems": [entry.as_dict() for entry in self.problems],
            **self.more,
        }
        if self.before_effect and request.method not in SAFE_METHODS:
            body["unchanged"] = UNCHANGED
        if request_id := getattr(request, "request_id", ""):
            body["request_id"] = request_id
        return JsonResponse(body, status=self.status, headers=self.headers, content_type=MEDIA_TYPE)


def single(kind: str, title: str, status: int, detail: str, *, code: str, fix: str, **rest: Any) -> Document:
    """A document about one thing: its detail is that thing's message."""
    return Document(kind, title, status, detail, [Entry(code, detail, fix)], **rest)
