"""Idempotency keys: a write that is sent again is answered again, not done again.

A row of (user, key) is inserted before the write runs, so of two at once the database lets one through. The row holds a
lease: a process that dies in the middle blocks its key no longer than that.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.api.documents import Document, single
from controlplane.api.dry_runs import is_dry_run
from controlplane.api.models import KeptAnswer

logger = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
LAWFUL = re.compile(r"[\x20-\x7e]{1,255}")
LEASE = timedelta(seconds=120)  # longer than any write takes: the slowest reads a model's files from afar
KEPT_HEADERS = ("Content-Type", "ETag", "Location", "Retry-After")
DESCRIPTION = (
    "Makes it safe to send this again after a broken connection: the first answer is kept and given again, with "
    f"`{REPLAYED}: true`. A word of your own that is new for each request, such as a UUID. `dry_run` leaves it aside."
)


class Settled(Exception):
    """The request is answered without being carried out."""

    def __init__(self, response: HttpResponse) -> None:
        self.response = response
        super().__init__(f"answered with {response.status_code}")


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to carry out one request, and the duty to keep its answer. Lost when the lease was taken over."""

    pk: int
    lease: str

    def keep(self, response: HttpResponse, *, secret: bool) -> None:
        """A failure of the server is not an answer: the same key may then try again."""
        if response.status_code >= 500:
            self._row().delete()
            return
        body = _made(response) if secret and response.status_code < 300 else response.content.decode()
        headers = {name: response[name] for name in KEPT_HEADERS if name in response}
        self._row().update(status=response.status_code, headers=headers, body=body)

    def _row(self) -> QuerySet[KeptAnswer]:
        return KeptAnswer.objects.filter(pk=self.pk, lease=self.lease)


class Idempotent(APIView):
    """Every view that takes writes. `shows_secret`: the actions or methods that answer with what is shown but once."""

    shows_secret: ClassVar[frozenset[str]] = frozenset()
    _claim: Claim | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """After who calls is known and permitted: an answer is given again only to whom it would be given now."""
        super().initial(request, *args, **kwargs)
        key = key_of(request)
        if key is not None and request.user.is_authenticated:
            self._claim = claim(request, key, secret=self._is_secret)

    def handle_exception(self, error: Exception) -> Any:
        return error.response if isinstance(error, Settled) else super().handle_exception(error)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        if self._claim is None:
            return response
        if hasattr(response, "add_post_render_callback"):
            response.add_post_render_callback(self._keep)
        else:
            self._keep(response)
        return response

    def _keep(self, response: HttpResponse) -> None:
        if self._claim is None:
            return
        try:
            self._claim.keep(response, secret=self._is_secret)
        except DatabaseError:  # what was asked for is done: that the answer was not kept must not make it a failure
            logger.exception("an answer could not be kept for its idempotency key")

    @property
    def _is_secret(self) -> bool:
        return bool(self.shows_secret & {getattr(self, "action", None), self.request.method})


def key_of(request: Request) -> str | None:
    """The key of a write; None where there is none to heed. An unlawful one is refused."""
    key = request.headers.get(HEADER)
    if key is None or request.method in SAFE_METHODS or is_dry_run(request):
        return None
    if not LAWFUL.fullmatch(key):
        text = "An idempotency key has 1 to 255 printable ASCII characters."
        raise ValidationError({HEADER: [ErrorDetail(text, code="idempotency-key")]})
    return key


def claim(request: Request, key: str, *, secret: bool) -> Claim:
    """The right to carry the request out; else Settled with the answer that it gets instead."""
    now, hash_ = timezone.now(), _hash(request._request)
    fresh = _fresh(now, hash_)
    try:
        with transaction.atomic():
            row = KeptAnswer.objects.create(user=request.user, key=key, **fresh)
    except IntegrityError:
        return _take_over(request, key, fresh, now, secret=secret)
    return Claim(row.pk, fresh["lease"])


def prune(now: datetime) -> int:
    """Delete the answers past their keep; how many they were."""
    return KeptAnswer.objects.filter(expires_at__lt=now).delete()[0]


def _fresh(now: datetime, hash_: str) -> dict[str, Any]:
    return {
        "request_hash": hash_,
        "lease": secrets.token_hex(16),
        "leased_until": now + LEASE,
        "expires_at": now + timedelta(hours=settings.IDEMPOTENCY_KEEP_H),
        "status": None,
        "headers": {},
        "body": "",
    }


def _take_over(request: Request, key: str, fresh: Mapping[str, Any], now: datetime, *, secret: bool) -> Claim:
    """The row is there. It is ours only if it is stale and nobody else takes it first."""
    plain = request._request
    row = KeptAnswer.objects.filter(user=request.user, key=key).first()
    if row is None:  # pruned, or its request failed, this very moment
        raise Settled(_running(1).response(plain))
    is_expired = row.expires_at <= now
    if row.request_hash != fresh["request_hash"] and not is_expired:
        raise Settled(_REUSED.response(plain))
    if row.status is not None and not is_expired:
        raise Settled(_replay(row, plain, secret=secret))
    if row.leased_until <= now and KeptAnswer.objects.filter(pk=row.pk, lease=row.lease).update(**fresh):
        return Claim(row.pk, str(fresh["lease"]))
    raise Settled(_running(1).response(plain))


def _replay(row: KeptAnswer, request: HttpRequest, *, secret: bool) -> HttpResponse:
    if secret and (row.status or 0) < 300:
        response: HttpResponse = _secret(row.body).response(request)
    else:
        response = HttpResponse(row.body, status=row.status, headers=row.headers)
    response[REPLAYED] = "true"
    return response


def _hash(request: HttpRequest) -> str:
    parts = (request.method or "", request.path, request.META.get("QUERY_STRING", ""))
    said = "\n".join(parts).encode() + b"\n" + request.body
    return salted_hmac(HEADER, said, algorithm="sha256").hexdigest()


def _made(response: HttpResponse) -> str:
    """Of an answer with a secret only the id is kept."""
    return str(getattr(response, "data", {}).get("id", ""))


def _running(retry_after_s: int) -> Document:
    return single(
        "idempotency-key-running", "Still running", 409, "The first request with this idempotency key still runs.",
        code="idempotency_key_running", fix="Send it again after the seconds named in Retry-After.",
        headers={"Retry-After": str(retry_after_s)}, before_effect=False,
    )  # fmt: skip


def _secret(made: str) -> Document:
    text = f"This was done already: it made {made}. The secret in its answer was shown that once and is not kept."
    return single(
        "secret-shown-once", "Done before; the secret is not shown again", 409, text,
        code="secret_shown_once", fix=f"If you have not got it, end {made} and make another with a new key.",
        before_effect=False,
    )  # fmt: skip


_REUSED = single(
    "idempotency-key-reused", "Idempotency key used before", 422,
    "This idempotency key came with another request before: another method, address, query or body.",
    code="idempotency_key_reused", fix="Send a key that is new for each request.",
)  # fmt: skip
