"""PUT /nodes/{id}/owners and /deployments/{id}/owners: who may change one of them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.api.strict import Reason
from controlplane.fleet import owners

HELP = "Users who alone may change it, besides admins; empty: admins alone. Null: every operator may."


class OwnersField(serializers.ListField):
    """In answers, of a node or a deployment."""

    def __init__(self, **kwargs: Any) -> None:
        name = serializers.CharField(max_length=150)
        super().__init__(child=name, allow_null=True, source="*", read_only=True, help_text=HELP, **kwargs)

    def to_representation(self, row: owners.Kept) -> list[str] | None:
        return owners.names(row)


class OwnersBody(Reason):
    owners = serializers.ListField(
        child=serializers.CharField(max_length=150), allow_null=True, max_length=200, help_text=HELP
    )


class WithOwners:
    """For a resource whose `set_owners` is the service."""

    set_owners: Any = None

    @action(detail=True, methods=["put"])
    def owners(self, request: Request, pk: str) -> Response:
        body = self.body()  # type: ignore[attr-defined]
        type(self).set_owners(self.id, names=body["owners"], reason=body["reason"], actor=self.actor)  # type: ignore[attr-defined]
        return self.shown()  # type: ignore[attr-defined]
