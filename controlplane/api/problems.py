"""Which error becomes which problem document, and the handler that REST framework calls."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.core.signals import got_request_exception
from django.db import OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.views import set_rollback

from controlplane.api.documents import Document, Entry, single
from controlplane.api.parsers import BodyTooLarge
from controlplane.domain.problems import DomainError
from controlplane.fleet.errors import FleetError, Refused
from controlplane.fleet.services import Stale

logger = logging.getLogger(__name__)

KINDS = {
    400: ("bad-request", "The request is not understood", "See /api/v1/docs for what this address takes."),
    401: ("not-authenticated", "Not logged in", "Send 'Authorization: Token ...'; POST /api/v1/tokens gives one."),
    403: ("not-permitted", "Not permitted", "Ask an admin for the role; GET /api/v1/me tells yours."),
    404: ("not-found", "Not found", "List the resource to see which ids exist."),
    405: ("method-not-allowed", "Method not allowed", "The Allow header names the methods of this address."),
    406: ("not-acceptable", "Not acceptable", "Accept application/json."),
    409: ("conflict", "Conflict", "Read the resource again, then decide again."),
    413: ("body-too-large", "Body too large", "Send less."),
    415: ("unsupported-media-type", "Unsupported media type", "Send a JSON body as application/json."),
    429: ("throttled", "Too many requests", "Wait for the seconds named in Retry-After."),
}
FIXES = {
    "required": "Send this field.",
    "unknown_field": "Leave it out.",
    "unknown_parameter": "Leave it out.",
    "unique": "Choose another value.",
    "does_not_exist": "Use the id of one that exists.",
}
NO_ROUTE = single(
    "not-found", "Not found", 404, "The API has no such address.",
    code="no_route", fix="GET /api/v1/schema lists all addresses; none ends in a slash.",
)  # fmt: skip
UNEXPECTED = single(
    "internal", "Internal error", 500, "The server failed on this request.",
    code="internal", fix="Look for the request_id in the server's log.", before_effect=False,
)  # fmt: skip
DATABASE_BUSY = single(
    "database-unavailable", "Database unavailable", 503, "The database does not answer or is busy.",
    code="database_unavailable", fix="Try again shortly.", headers={"Retry-After": "2"},
)  # fmt: skip


def handler(error: Exception, context: dict[str, Any]) -> JsonResponse:
    set_rollback()
    request = context["request"]._request
    document = _document_of(error)
    if document is None:
        logger.error("unexpected error at %s %s", request.method, request.path, exc_info=error)
        got_request_exception.send(sender=None, request=request)
        document = UNEXPECTED
    return document.response(request)


@csrf_exempt  # a program that errs in the address is told so, not that it lacks a cookie
def no_route(request: HttpRequest, path: str = "") -> JsonResponse:
    """The view of every address under /api/v1/ that is no route."""
    return NO_ROUTE.response(request)


def _document_of(error: Exception) -> Document | None:
    if isinstance(error, FleetError):
        return _of_fleet(error)
    if isinstance(error, DomainError):
        return _of_fleet(Refused([error.problem]))
    if isinstance(error, OperationalError):
        logger.warning("the database failed an API request", exc_info=error)
        return DATABASE_BUSY
    if isinstance(error, Http404):
        error = exceptions.NotFound("There is nothing with this id.")
    if isinstance(error, RequestDataTooBig):  # far above our own limit, Django's comes first
        error = BodyTooLarge()
    if isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied(*error.args)
    if isinstance(error, exceptions.ValidationError):
        return _of_validation(error)
    if isinstance(error, exceptions.APIException):
        return _of_framework(error)
    return None


def _of_validation(error: exceptions.ValidationError) -> Document:
    entries = list(_flatten(error.detail))
    return Document("invalid", "Invalid request", 400, _in_a_sentence(entries), entries)


def _flatten(detail: Any, path: str = "") -> Iterator[Entry]:
    """One entry per message, wherever in the nested fields it stands."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _flatten(inner, _below(path, name))
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            # A list of messages is about one value; a list of dicts is about the items of a list.
            yield from _flatten(inner, path if isinstance(inner, str) else f"{path}[{index}]")
    else:
        code = getattr(detail, "code", "invalid")
        fix = FIXES.get(code, "Correct the value; /api/v1/docs tells what is taken here.")
        yield Entry(code, str(detail), fix, path)


def _below(path: str, name: str | int) -> str:
    if name == "non_field_errors":
        return path
    return f"{path}[{name}]" if isinstance(name, int) else f"{path}.{name}".lstrip(".")


def _in_a_sentence(entries: list[Entry]) -> str:
    return " ".join(f"{entry.field}: {entry.message}" if entry.field else entry.message for entry in entries[:3])


def _of_framework(error: exceptions.APIException) -> Document:
    kind, title, fix = KINDS.get(error.status_code, ("refused", "Refused", "See /api/v1/docs."))
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if (wait := getattr(error, "wait", None)) is not None:
        headers["Retry-After"] = str(int(wait))
    code = getattr(error.detail, "code", error.default_code)
    return single(kind, title, error.status_code, str(error.detail), code=code, fix=fix, headers=headers)


def _of_fleet(error: FleetError) -> Document:
    entries = [
        Entry(problem.code, problem.message, problem.fix, forceable=problem.forceable) for problem in error.problems
    ]
    return Document(error.code, error.title, error.status, str(error), entries, more=_more(error))


def _more(error: FleetError) -> dict[str, Any]:
    """Of a stale plan: what others changed meanwhile, newest first."""
    if not isinstance(error, Stale):
        return {}
    changes = [
        {
            "actor": event.actor_name,
            "verb": event.verb,
            "subject": event.subject_name,
            "at": event.at.isoformat(),
            "reason": event.reason,
        }
        for event in error.events
    ]
    return {"code": error.code, "changes": changes}
