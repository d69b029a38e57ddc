"""REST permission: the action a view names, looked up in the one role table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from controlplane.api.dry_runs import is_dry_run
from controlplane.audit import roles

if TYPE_CHECKING:  # REST framework loads this module while it loads its views
    from rest_framework.views import APIView


def action_named_by(view: APIView, method: str) -> str | None:
    """The role action of this call: by DRF action, by method, or for the whole view; reading needs "view"."""
    named = getattr(view, "role_actions", {})
    name = named.get(getattr(view, "action", None)) or named.get(method) or getattr(view, "role_action", None)
    if name is None and method in SAFE_METHODS:
        return "view"
    return name


class RolePermission(BasePermission):
    """A view says `role_action` (all methods) or `role_actions` (by DRF action or method name); `preview_actions` are
    what `dry_run=true` needs instead."""

    message = ""

    def has_permission(self, request: Request, view: APIView) -> bool:
        name = action_named_by(view, request.method or "")
        if is_dry_run(request):
            name = getattr(view, "preview_actions", {}).get(getattr(view, "action", None), name)
        if name is None:
            self.message = "This address takes no such writes."  # a write that names no action is refused, not guessed
            return False
        if roles.allows(request.user, name):
            return True
        self.message = roles.refusal(request.user, name)
        return False


class LoggedIn(BasePermission):
    """Anyone with an account, also one that was given no role yet."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(request.user and request.user.is_authenticated)
