"""What callers send is taken exactly or refused: a misspelt field or parameter never passes unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.views import APIView

MAX_ID = 2**63 - 1


class Body(serializers.Serializer):
    """A request body. Fields it does not know, or only shows, are refused by name."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            if unknown := [str(name) for name in data if name not in writable]:
                raise ValidationError({name: [self._refusal(name, writable)] for name in unknown})
        return super().to_internal_value(data)

    def _refusal(self, name: str, writable: set[str]) -> ErrorDetail:
        known = ", ".join(sorted(writable)) or "none"
        return ErrorDetail(f"There is no such field here. Known fields: {known}.", code="unknown_field")


class Nothing(Body):
    """A request without fields."""


class Reason(Body):
    reason = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=1000, help_text="Why; kept in the audit trail."
    )


class Id(serializers.IntegerField):
    """The id of a row."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_ID, **kwargs)


def refuse_unknown_parameters(request: Request, known: set[str]) -> None:
    """Without this a misspelt filter would quietly list everything, and a `dry_run` where there is none would act."""
    if unknown := sorted(set(request.query_params) - known):
        names = ", ".join(sorted(known)) or "none"
        text = f"There is no such query parameter here. Known: {names}."
        raise ValidationError({name: [ErrorDetail(text, code="unknown_parameter")] for name in unknown})


class StrictOrdering(OrderingFilter):
    """`?ordering=name` or `-name`; an unknown field is refused. The id decides between equals: pages stay apart."""

    def get_ordering(self, request: Request, queryset: Any, view: APIView) -> Any:
        asked = [term.strip() for term in request.query_params.get(self.ordering_param, "").split(",") if term.strip()]
        lawful = {name for name, _ in self.get_valid_fields(queryset, view)}
        if wrong := [term for term in asked if term.removeprefix("-") not in lawful]:
            text = f"Cannot order by {', '.join(wrong)}. Known: {', '.join(sorted(lawful))}."
            raise ValidationError({self.ordering_param: [ErrorDetail(text, code="unknown_ordering")]})
        return [*asked, "id"] if asked else self.get_default_ordering(view)

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        fields = getattr(view, "ordering_fields", None)
        if not fields:
            return []
        text = f"One or more of {', '.join(fields)}, with commas; a leading - turns the order."
        return [
            {"name": self.ordering_param, "required": False, "in": "query", "description": text,
             "schema": {"type": "string"}}
        ]  # fmt: skip
