"""REST permission: the action a view names, looked up in the one role table."""

from __future__ import annotations

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from controlplane.audit import roles


class RolePermission(BasePermission):
    """A view says `role_action`, or `role_actions` by DRF action or method name; reading needs "view"."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        named = getattr(view, "role_actions", {})
        name = named.get(getattr(view, "action", None)) or named.get(request.method)
        name = name or getattr(view, "role_action", None)
        if name is None:
            if request.method not in SAFE_METHODS:
                return False  # a write that names no action is refused, not guessed
            name = "view"
        return roles.allows(request.user, name)
