"""A row's version as its ETag, and what If-Match says of it."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request

from controlplane.fleet.errors import Conflict

IF_MATCH = OpenApiParameter(
    "If-Match", OpenApiTypes.STR, OpenApiParameter.HEADER,
    description="The ETag as you saw it; 412 when somebody was faster.",
)  # fmt: skip


class Faster(Conflict):
    """What If-Match names is not there any more."""

    status = 412
    code = "precondition-failed"


class ExpectedVersion(serializers.IntegerField):
    """In a body: the version that the caller saw."""

    def __init__(self) -> None:
        super().__init__(
            required=False, allow_null=True, default=None, min_value=0, max_value=2_147_483_647,
            help_text="As you saw it; 409 when somebody was faster.",
        )  # fmt: skip


def tag(version: int) -> str:
    return f'"v{version}"'


def seen(request: Request, expected: int | None, version: int) -> int | None:
    """The version that the caller saw, by its body; what If-Match names is looked at here. `version`: as it is."""
    tags = [one.strip() for one in request.headers.get("If-Match", "").split(",") if one.strip()]
    if not tags or "*" in tags:
        return expected
    if tag(version) not in tags:
        message = f"It is at version {version} now, which If-Match does not name. Nothing was changed."
        raise Faster(message, "Read it again, then decide again.")
    return version if expected is None else expected
