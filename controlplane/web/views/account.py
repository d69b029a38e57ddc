"""Settings: theme, one's own REST tokens, API keys of the gateway."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit import second_factor, tokens
from controlplane.audit.requests import actor_of
from controlplane.gateway import services as gateway
from controlplane.gateway.models import ApiKey
from controlplane.web import account_forms as forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, refused, sent, show


@require_GET
@needs("view")
def settings(request: HttpRequest) -> HttpResponse:
    return _home(request, forms.NewToken(lawful=tokens.scopes_for(request.user)))


@require_POST
@needs("view")
def token_new(request: HttpRequest) -> HttpResponse:
    form = forms.NewToken(request.POST, lawful=tokens.scopes_for(request.user))
    if not form.is_valid():
        return _home(request, form)
    return new_token(request, request.user, form, up="web:settings")


@require_POST
@needs("view")
def token_revoke(request: HttpRequest, key: str) -> HttpResponse:
    ended = tokens.revoke(tokens.of(request.user).filter(token_key=key), actor=actor_of(request, "web"))
    return done(request, "Revoked the token." if ended else "That token had ended already.", "web:settings")


@require_http_methods(["GET", "POST"])
@needs("key.manage")
def keys(request: HttpRequest) -> HttpResponse:
    form = forms.NewKey(sent(request))
    context = {"form": form, "keys": ApiKey.objects.select_related("created_by", "team"), "now": timezone.now()}
    if request.method == "GET" or not form.is_valid():
        return show(request, "settings/keys.html", context, invalid=form.is_bound)
    try:
        key, plain = gateway.create_key(**_key_values(form.cleaned_data), actor=actor_of(request, "web"))
    except REFUSALS as error:
        return show(request, "settings/keys.html", context, error)
    use = f'curl -H "Authorization: Bearer {plain}" {django_settings.GATEWAY_URL}/v1/models'
    note = "Clients of the OpenAI API send it to the gateway."
    return once(request, f"API key {key.name}", plain, use=use, up="web:keys", note=note)


@require_POST
@needs("key.manage")
def key_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    key = find(ApiKey.objects, pk, "API key")
    try:
        gateway.revoke_key(pk, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return refused(request, error, "web:keys")
    return done(request, f"Revoked {key.name}: the gateway stops taking it within a second.", "web:keys")


def new_token(request: HttpRequest, user: Any, form: forms.NewToken, *, up: str) -> HttpResponse:
    """The page that shows a new token of `user`, once."""
    token, plain = tokens.issue(user=user, **form.cleaned_data, actor=actor_of(request, "web"))
    use = f'curl -H "Authorization: Token {plain}" {django_settings.PUBLIC_URL}/api/v1/nodes'
    note = f"Valid until {token.expiry:%Y-%m-%d %H:%M} UTC."
    return once(request, "REST token", plain, use=use, up=up, note=note)


def once(request: HttpRequest, what: str, secret: str, *, up: str, note: str, use: str = "") -> HttpResponse:
    """`up` is where "Done" leads: a route's name or an address."""
    context = {"what": what, "secret": secret, "use": use, "up": resolve_url(up), "note": note}
    answer = show(request, "settings/once.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


def _home(request: HttpRequest, form: forms.NewToken) -> HttpResponse:
    context = {
        "tokens": tokens.of(request.user),
        "form": form,
        "has_second_factor": second_factor.has(request.user),
        "has_password": request.user.has_usable_password(),
    }
    return show(request, "settings/home.html", context, invalid=form.is_bound)


def _key_values(cleaned: dict[str, Any]) -> dict[str, Any]:
    """A key lives until the end of the day that was chosen."""
    day = cleaned["expires_at"]
    ends = timezone.make_aware(datetime.combine(day, time.max)) if day else None
    return {**cleaned, "expires_at": ends}
