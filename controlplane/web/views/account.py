"""Settings: theme, REST tokens, API keys of the gateway, users and roles."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit import people, roles, tokens
from controlplane.audit.requests import actor_of
from controlplane.gateway import services as gateway
from controlplane.gateway.models import ApiKey
from controlplane.web import account_forms as forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, refused, sent, show


@require_GET
@needs("view")
def settings(request: HttpRequest) -> HttpResponse:
    return show(request, "settings/home.html", {"tokens": tokens.of(request.user), "form": forms.NewToken()})


@require_POST
@needs("view")
def token_new(request: HttpRequest) -> HttpResponse:
    form = forms.NewToken(request.POST)
    if not form.is_valid():
        return show(request, "settings/home.html", {"tokens": tokens.of(request.user), "form": form}, invalid=True)
    token, plain = tokens.issue(ttl_s=form.cleaned_data["ttl_s"], actor=actor_of(request, "web"))
    use = f'curl -H "Authorization: Token {plain}" {django_settings.PUBLIC_URL}/api/v1/nodes'
    note = f"Valid until {token.expiry:%Y-%m-%d %H:%M} UTC."
    return _once(request, "REST token", plain, use=use, up="web:settings", note=note)


@require_POST
@needs("view")
def token_revoke(request: HttpRequest, key: str) -> HttpResponse:
    ended = tokens.revoke(tokens.of(request.user).filter(token_key=key), actor=actor_of(request, "web"))
    return done(request, "Revoked the token." if ended else "That token had ended already.", "web:settings")


@require_http_methods(["GET", "POST"])
@needs("key.manage")
def keys(request: HttpRequest) -> HttpResponse:
    form = forms.NewKey(sent(request))
    context = {"form": form, "keys": ApiKey.objects.select_related("created_by"), "now": timezone.now()}
    if request.method == "GET" or not form.is_valid():
        return show(request, "settings/keys.html", context, invalid=form.is_bound)
    try:
        key, plain = gateway.create_key(**_key_values(form.cleaned_data), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "settings/keys.html", context, error)
    use = f'curl -H "Authorization: Bearer {plain}" {django_settings.GATEWAY_URL}/v1/models'
    note = "Clients of the OpenAI API send it to the gateway."
    return _once(request, f"API key {key.name}", plain, use=use, up="web:keys", note=note)


@require_POST
@needs("key.manage")
def key_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    key = find(ApiKey.objects, pk, "API key")
    try:
        gateway.revoke_key(pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return refused(request, error, "web:keys")
    return done(request, f"Revoked {key.name}: the gateway stops taking it within a second.", "web:keys")


@require_http_methods(["GET", "POST"])
@needs("user.manage")
def users(request: HttpRequest) -> HttpResponse:
    form = forms.NewUser(sent(request))
    context = {"form": form, "people": _people(), "roles": list(roles.ROLES)}
    if request.method == "GET" or not form.is_valid():
        return show(request, "settings/users.html", context, invalid=form.is_bound)
    try:
        user, plain = people.create_user(**form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "settings/users.html", context, error)
    return _once(request, f"Password of {user}", plain, use="", up="web:users", note="Hand it over on a safe way.")


@require_POST
@needs("user.manage")
def user_change(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    actor = actor_of(request, "web")
    try:
        if verb == "role":
            user = people.set_role(pk, role=request.POST.get("role", ""), actor=actor)
            return done(request, f"{user} is {roles.level_of(user).name.lower()} now.", "web:users")
        if verb == "password":
            user, plain = people.set_password(pk, actor=actor)
            note = "The user's sessions and REST tokens have ended."
            return _once(request, f"Password of {user}", plain, use="", up="web:users", note=note)
        user = people.set_active(pk, active=verb == "enable", actor=actor)
    except REFUSALS as error:
        return refused(request, error, "web:users")
    return done(request, f"{'Enabled' if user.is_active else 'Disabled'} {user}.", "web:users")


def _people() -> list[tuple[Any, str]]:
    rows = get_user_model().objects.order_by("username").prefetch_related("groups")
    return [(user, _role(user)) for user in rows]


def _role(user: Any) -> str:
    """From the prefetched groups; roles.level_of would ask again for each, and calls a disabled user nobody."""
    if user.is_superuser:
        return "admin"
    held = [group.name for group in user.groups.all() if group.name in roles.ROLES]
    return max(held, key=roles.ROLES.__getitem__, default="")


def _key_values(cleaned: dict[str, Any]) -> dict[str, Any]:
    """A key lives until the end of the day that was chosen."""
    day = cleaned["expires_at"]
    ends = timezone.make_aware(datetime.combine(day, time.max)) if day else None
    return {**cleaned, "expires_at": ends}


def _once(request: HttpRequest, what: str, secret: str, *, use: str, up: str, note: str) -> HttpResponse:
    answer = show(request, "settings/once.html", {"what": what, "secret": secret, "use": use, "up": up, "note": note})
    answer["Cache-Control"] = "no-store"
    return answer
