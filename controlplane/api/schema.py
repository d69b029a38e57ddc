"""OpenAPI: adds to every operation the errors it can answer with, so that no view has to repeat them."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.contrib.knox_auth_token import KnoxTokenScheme
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS

from controlplane.api import idempotency
from controlplane.api.documents import MEDIA_TYPE

ERRORS = {
    "400": "Invalid: `problems` names each field and how to correct it.",
    "401": "Not logged in, or the token is unknown or expired.",
    "403": "The role does not allow it, or the CSRF token is missing.",
    "404": "There is nothing with this id, or the list has no such page.",
    "409": "Refused in the present state, or somebody else was faster.",
    "412": "What If-Match names is not there any more.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "422": "The idempotency key came with another request before.",
    "429": "Too many requests; Retry-After says when to come again.",
    "503": "The database does not answer or is busy.",
}
KEY_PARAMETER = {
    "name": idempotency.HEADER,
    "in": "header",
    "required": False,
    "description": idempotency.DESCRIPTION,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


class ProblemEntry(serializers.Serializer):
    code = serializers.CharField(help_text="A word for programs.")
    message = serializers.CharField(help_text="What is wrong, for people.")
    fix = serializers.CharField(help_text="What to do about it.", allow_blank=True)
    field = serializers.CharField(required=False, help_text="Where in the request, as `groups[0][1]`.")
    forceable = serializers.BooleanField(required=False, help_text="`force: true` overrides it.")


class ChangedMeanwhile(serializers.Serializer):
    """What somebody else changed since the plan was made."""

    actor = serializers.CharField()
    verb = serializers.CharField()
    subject = serializers.CharField()
    at = serializers.DateTimeField()
    reason = serializers.CharField(allow_blank=True)


class Problem(serializers.Serializer):
    """RFC 9457, media type `application/problem+json`."""

    type = serializers.CharField(help_text="A URN that names the kind of problem.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What happened, in a sentence or two.")
    problems = ProblemEntry(many=True)
    unchanged = serializers.CharField(required=False, help_text="For writes: what was left as it was.")
    code = serializers.CharField(required=False, help_text="Of a stale plan: `stale-plan`.")
    changes = ChangedMeanwhile(many=True, required=False, help_text="Of a stale plan: newest first.")
    request_id = serializers.CharField(required=False, help_text="Also in the audit trail and the server's log.")


class ProblemSchema(AutoSchema):
    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation = super().get_operation(*args, **kwargs)
        if operation is not None:
            problem = self.resolve_serializer(Problem(), "response").ref
            for status in self._errors(operation):
                operation["responses"].setdefault(
                    status, {"description": ERRORS[status], "content": {MEDIA_TYPE: {"schema": problem}}}
                )
            if self._takes_keys():
                operation.setdefault("parameters", []).append(KEY_PARAMETER)
            operation["responses"] = dict(sorted(operation["responses"].items()))
        return operation

    def _takes_keys(self) -> bool:
        return self.method not in SAFE_METHODS and isinstance(self.view, idempotency.Idempotent)

    def get_operation_id(self) -> str:
        """nodes_cordon, not nodes_cordon_create: an action is a verb already."""
        if getattr(self.view, "action", None) in {action.__name__ for action in self._extra_actions()}:
            return f"{self.get_tags()[0].replace('-', '_')}_{self.view.action}"
        return super().get_operation_id()

    def _extra_actions(self) -> list[Any]:
        return self.view.get_extra_actions() if hasattr(self.view, "get_extra_actions") else []

    def _get_serializer_name(self, serializer: Any, direction: Any, bypass_extensions: bool = False) -> str:
        """Node, not NodeShape; AssignRequest, not AssignBodyRequest."""
        name = super()._get_serializer_name(serializer, direction, bypass_extensions)
        return re.sub(r"(Shape|Body)(?=(Request)?$)", "", name)

    def _errors(self, operation: dict[str, Any]) -> list[str]:
        """The statuses this operation can answer with, by what it takes."""
        found = ["503"]
        if self.get_auth():
            found += ["401", "403"]
        if "{" in self.path or "requestBody" in operation or operation.get("parameters"):
            found.append("404")  # named in the address, in the body, or as a page
        if "requestBody" in operation:
            found += ["413", "415"]
        if self.method not in SAFE_METHODS or operation.get("parameters"):
            found.append("400")
        if self.method not in SAFE_METHODS:
            found.append("409")
        if self._takes_keys():
            found.append("422")
        if getattr(self.view, "throttle_classes", None):
            found.append("429")
        found += getattr(self.view, "extra_errors", ())
        return found


class ApiTokenScheme(KnoxTokenScheme):
    target_class = "controlplane.api.authentication.ApiToken"
    name = "token"


class PasswordScheme(OpenApiAuthenticationExtension):
    target_class = "controlplane.api.authentication.Password"
    name = "password"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "basic", "description": "Only to get a token."}
