"""Who may open a page. Every view names the action it needs; nothing is public but the login page."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url

from controlplane.audit import roles

View = Callable[..., Any]


def needs(action: str) -> Callable[[View], View]:
    """Only users whose role allows `action`, for plain and async views alike."""
    roles.ACTIONS[action]  # a misspelt action fails when the module loads, not when somebody clicks

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
                request.user = await request.auser()
                refusal = await sync_to_async(_refusal)(request, action)
                return refusal or await view(request, *args, **kwargs)

            return guarded_async

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            return _refusal(request, action) or view(request, *args, **kwargs)

        return guarded

    return decorate


def _refusal(request: HttpRequest, action: str) -> HttpResponse | None:
    if not request.user.is_authenticated:
        return _to_login(request)
    if not roles.allows(request.user, action):
        raise PermissionDenied(f"{roles.refusal(request.user, action)} Ask an admin to change your role.")
    return None


def _to_login(request: HttpRequest) -> HttpResponse:
    login = resolve_url(settings.LOGIN_URL)
    if getattr(request, "htmx", False):  # a part of a page: the whole page has to go there
        return HttpResponse(status=401, headers={"HX-Redirect": login})
    return redirect_to_login(request.get_full_path(), login)
