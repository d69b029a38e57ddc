"""The audit trail in Django's admin: to read, never to change. Accounts and tokens are not there at all: they are
changed on the settings pages, which leave an audit event and keep the last admin."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from knox.models import AuthToken

from controlplane.audit.models import AuditEvent

for model in (User, Group, AuthToken, EmailAddress):
    if admin.site.is_registered(model):
        admin.site.unregister(model)


def login(request: HttpRequest, extra_context: Any = None) -> HttpResponse:
    """By our own page. The admin's asks for a password alone, and would be a way around the second factor."""
    if not request.user.is_authenticated:
        return redirect_to_login(request.GET.get("next") or "/admin/")
    if not admin.site.has_permission(request):
        raise PermissionDenied("Django's admin is for staff accounts.")
    return redirect("admin:index")


admin.site.login = login  # type: ignore[method-assign]


@admin.register(AuditEvent)
class AuditEventAdmin(admin.ModelAdmin):
    list_display = ["at", "actor_name", "source", "verb", "subject_type", "subject_name", "reason"]
    list_filter = ["source", "verb", "subject_type"]
    search_fields = ["actor_name", "subject_name", "reason", "request_id"]
    date_hierarchy = "at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
