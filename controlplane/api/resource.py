"""What all resources share: strict parameters, whole-number ids, a 404 in words, who acts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar

from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet

from controlplane.api.idempotency import Idempotent
from controlplane.api.strict import Reason, StrictOrdering, refuse_unknown_parameters
from controlplane.audit.requests import actor_of
from controlplane.audit.services import Actor

DRY_RUN = OpenApiParameter("dry_run", OpenApiTypes.BOOL, description="true: say what would happen; nothing changes.")
REASON = OpenApiParameter("reason", OpenApiTypes.STR, description="Why; kept in the audit trail.")


class Resource(Idempotent, GenericViewSet):
    """A view set. `noun` names one of it to people; `parameters` are the query parameters of an action beyond
    those of its filters, ordering and pages."""

    noun: ClassVar[str] = "row"
    preview_actions: ClassVar[dict[str, str]] = {}
    parameters: ClassVar[dict[str, set[str]]] = {}
    bodies: ClassVar[dict[str, type[BaseSerializer]]] = {}  # by action: what it takes
    lookup_value_regex = "[0-9]{1,18}"
    filter_backends = [DjangoFilterBackend, StrictOrdering]
    ordering_fields: ClassVar[list[str]] = []

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        refuse_unknown_parameters(request, self._known_parameters())

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Answers are of the moment, and some hold a secret that is shown once."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        return response

    def _known_parameters(self) -> set[str]:
        known = set(self.parameters.get(self.action, ()))
        if self.action != "list":
            return known
        known |= self.paginator.parameters if self.paginator else set()
        known |= {"ordering"} if self.ordering_fields else set()
        return known | set(self.filterset_class.base_filters if getattr(self, "filterset_class", None) else ())

    def get_object(self) -> Any:
        return self._row(self.id)

    def _row(self, pk: int) -> Any:
        """By id alone: list filters do not apply to one row."""
        found = self.get_queryset().filter(pk=pk).first()
        if found is None:
            raise NotFound(f"There is no {self.noun} with the id {pk}.")
        return found

    def body(self) -> dict[str, Any]:
        """What was sent, validated."""
        serializer = self.bodies[self.action](data=self.request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data

    def shown(self, pk: int | None = None, status: int = HTTPStatus.OK) -> Response:
        """The row as it is now, by default the one of the address: what a write answers with."""
        row = self._row(self.id if pk is None else pk)
        return Response(self.get_serializer(row).data, status)

    def reason(self) -> str:
        """`?reason=` of a DELETE, which carries no body."""
        serializer = Reason(data={"reason": self.request.query_params.get("reason", "")})
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data["reason"]

    def flag(self, name: str) -> bool:
        """A yes/no query parameter; anything but true and false is refused."""
        value = self.request.query_params.get(name, "false").lower()
        if value not in {"true", "false", "1", "0"}:
            raise ValidationError({name: ["Say true or false."]})
        return value in {"true", "1"}

    @property
    def id(self) -> int:
        return int(self.kwargs["pk"])

    @property
    def actor(self) -> Actor:
        return actor_of(self.request, "rest")
