"""Settings: users and service accounts, their roles and access."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.audit import people, roles, second_factor, service_accounts, tokens
from controlplane.audit.requests import actor_of
from controlplane.web import account_forms as forms
from controlplane.web.access import needs
from controlplane.web.answers import REFUSALS, done, find, refused, sent, show
from controlplane.web.views.account import new_token, once


@require_http_methods(["GET", "POST"])
@needs("user.manage")
def users(request: HttpRequest) -> HttpResponse:
    form = forms.NewUser(sent(request))
    if request.method == "GET" or not form.is_valid():
        return _users(request, form)
    try:
        user, plain = people.create_user(**form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return _users(request, form, error)
    return once(request, f"Password of {user}", plain, up="web:users", note="Hand it over on a safe way.")


@require_POST
@needs("user.manage")
def user_change(request: HttpRequest, pk: int, verb: str) -> HttpResponse:
    actor = actor_of(request, "web")
    try:
        if verb == "role":
            user = people.set_role(pk, role=request.POST.get("role", ""), actor=actor)
            return done(request, f"{user} is {roles.level_of(user).name.lower()} now.", _home_of(user))
        if verb == "password":
            user, plain = people.set_password(pk, actor=actor)
            note = "The user's sessions and REST tokens have ended."
            return once(request, f"Password of {user}", plain, up="web:users", note=note)
        if verb == "second-factor":
            user = find(get_user_model().objects, pk, "user")
            had = second_factor.reset(user, actor=actor)
            words = f"{user} signs in with the password alone now." if had else f"{user} has no second factor."
            return done(request, words, "web:users")
        user = people.set_active(pk, active=verb == "enable", actor=actor)
    except REFUSALS as error:
        return refused(request, error, "web:users")
    return done(request, f"{'Enabled' if user.is_active else 'Disabled'} {user}.", _home_of(user))


@require_POST
@needs("user.manage")
def service_new(request: HttpRequest) -> HttpResponse:
    form = forms.NewService(request.POST)
    if not form.is_valid():
        return _users(request, forms.NewUser(), service_form=form)
    try:
        account = service_accounts.create(**form.cleaned_data, actor=actor_of(request, "web"))
    except REFUSALS as error:
        return refused(request, error, "web:users")
    return done(request, f"Made {account}. Issue a token for it here.", "web:service", account.pk)


@require_GET
@needs("user.manage")
def service(request: HttpRequest, pk: int) -> HttpResponse:
    account = find(service_accounts.listed(), pk, "service account")
    return _service(request, account, forms.NewToken(lawful=tokens.scopes_for(account.user)))


@require_POST
@needs("user.manage")
def service_token_new(request: HttpRequest, pk: int) -> HttpResponse:
    account = find(service_accounts.listed(), pk, "service account")
    form = forms.NewToken(request.POST, lawful=tokens.scopes_for(account.user))
    if not form.is_valid():
        return _service(request, account, form)
    return new_token(request, account.user, form, up=_home_of(account.user))


@require_POST
@needs("user.manage")
def service_token_revoke(request: HttpRequest, pk: int, key: str) -> HttpResponse:
    account = find(service_accounts.listed(), pk, "service account")
    ended = tokens.revoke(tokens.of(account.user).filter(token_key=key), actor=actor_of(request, "web"))
    words = "Revoked the token." if ended else "That token had ended already."
    return done(request, words, "web:service", pk)


def _users(
    request: HttpRequest, form: forms.NewUser, error: Any = None, *, service_form: forms.NewService | None = None
) -> HttpResponse:
    context = {
        "form": form,
        "service_form": service_form or forms.NewService(),
        "people": _with_roles(_with_second_factor(get_user_model().objects.filter(service=None))),
        "services": _with_roles(get_user_model().objects.exclude(service=None).select_related("service")),
        "roles": list(roles.ROLES),
    }
    invalid = form.is_bound or bool(service_form)
    return show(request, "settings/users.html", context, error, invalid=invalid)


def _service(request: HttpRequest, account: Any, form: forms.NewToken) -> HttpResponse:
    context = {
        "account": account,
        "role": _role(account.user),
        "roles": list(roles.ROLES),
        "tokens": tokens.of(account.user),
        "form": form,
    }
    return show(request, "settings/service.html", context, invalid=form.is_bound)


def _home_of(user: Any) -> str:
    return reverse("web:service", args=[user.service.pk]) if people.is_service(user) else reverse("web:users")


def _with_roles(rows: Any) -> list[tuple[Any, str]]:
    return [(user, _role(user)) for user in rows.order_by("username").prefetch_related("groups")]


def _with_second_factor(rows: Any) -> Any:
    held = Authenticator.objects.filter(user_id=OuterRef("pk"), type=second_factor.TOTP)
    return rows.annotate(has_second_factor=Exists(held))


def _role(user: Any) -> str:
    """From the prefetched groups; roles.role_of would ask again for each, and calls a disabled user nobody."""
    if user.is_superuser:
        return "admin"
    held = [group.name for group in user.groups.all() if group.name in roles.ROLES]
    return max(held, key=roles.ROLES.__getitem__, default="")
