"""Single sign-on by OpenID Connect. allauth walks the way; tokens are verified and groups become a role here."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, NoReturn

import jwt
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter, get_adapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.crypto import constant_time_compare, get_random_string

from controlplane.audit import people
from controlplane.audit.services import Actor, record
from controlplane.domain import sign_on
from controlplane.domain.problems import DomainError

logger = logging.getLogger(__name__)

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
CLOCKS_MAY_DIFFER_S = 60
NEEDED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")


class Flow(OpenIDConnectOAuth2Adapter):
    """The requests to the provider. An id_token counts only when its signature is verified, however it came."""

    @cached_property
    def openid_config(self) -> dict[str, Any]:
        found = self._get(self.get_provider().server_url)
        if missing := [name for name in NEEDED if not found.get(name)]:
            raise OAuth2Error(f"the discovery document has no {', '.join(missing)}")
        if found["issuer"].rstrip("/") != settings.OIDC["issuer"]:
            raise OAuth2Error(f"the discovery document is of another issuer, {found['issuer']}")
        return found

    def complete_login(self, request: HttpRequest, app: SocialApp, token: Any, **more: Any) -> SocialLogin:
        claims = self._verified(app, more["response"].get("id_token") or "")
        data = {"id_token": claims}
        if address := self.openid_config.get("userinfo_endpoint"):
            told = self._get(address, Authorization=f"Bearer {token.token}")
            if told.get("sub") != claims["sub"]:
                raise OAuth2Error("userinfo is of another subject than the id_token")
            data["userinfo"] = told
        return self.get_provider().sociallogin_from_response(request, data)

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        return settings.PUBLIC_URL.rstrip("/") + reverse("web:sign-on-back")

    def _verified(self, app: SocialApp, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise OAuth2Error(f"an id_token signed by {header.get('alg')} is not taken")
            return jwt.decode(
                token,
                self._key(header.get("kid")),
                algorithms=[header["alg"]],
                audience=app.client_id,
                issuer=self.openid_config["issuer"],
                leeway=CLOCKS_MAY_DIFFER_S,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except jwt.PyJWTError as error:
            raise OAuth2Error(f"the id_token is not valid: {error}") from error

    def _key(self, kid: str | None) -> Any:
        """Of the signing keys the one that is named; without a name the only one."""
        keys = jwt.PyJWKSet.from_dict(self._get(self.openid_config["jwks_uri"])).keys
        named = [key for key in keys if key.key_id == kid] if kid else keys
        if len(named) != 1:
            raise OAuth2Error(f"the provider has no signing key {kid}")
        return named[0]

    def _get(self, address: str, **headers: str) -> dict[str, Any]:
        with get_adapter().get_requests_session() as session:
            response = session.get(address, headers=headers)
            response.raise_for_status()
            found = response.json()
        if not isinstance(found, dict):
            raise OAuth2Error(f"{address} did not answer with an object")
        return found


class Provider(OpenIDConnectProvider):
    """Sends a nonce along, and takes nothing of the way there from the address that a browser was led to."""

    oauth2_adapter_class = Flow
    pkce_enabled_default = True

    def get_default_scope(self) -> list[str]:
        return list(settings.OIDC["scopes"])

    def get_redirect_from_request_kwargs(self, request: HttpRequest) -> dict[str, Any]:
        return {"process": "login", "next_url": request.GET.get("next")}

    def redirect(self, request: HttpRequest, process: str, next_url: str | None = None, **_: Any) -> HttpResponse:
        nonce = get_random_string(32)
        safe = get_adapter().is_safe_url(next_url) if next_url else False
        return super().redirect(request, "login", next_url if safe else None, auth_params={"nonce": nonce}, nonce=nonce)


class SignOn(DefaultSocialAccountAdapter):
    """Accounts are made at the first sign-on, never joined with others, and have the role that the groups give now."""

    def list_apps(self, request: HttpRequest, provider: str | None = None, client_id: str | None = None) -> list[Any]:
        if settings.OIDC is None:
            return []
        app = SocialApp(provider=Provider.id, provider_id=Provider.id, name=settings.OIDC["name"])
        app.client_id, app.secret = settings.OIDC["client_id"], settings.OIDC["client_secret"]
        app.settings = {"server_url": settings.OIDC["issuer"]}
        return [app]

    def get_provider(self, request: HttpRequest, provider: str, client_id: str | None = None) -> Provider:
        return Provider(request, app=self.get_app(request, provider))

    def is_safe_url(self, url: str) -> bool:
        return url.startswith("/") and not url.startswith(("//", "/\\"))

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, extra_context: Any = None
    ) -> NoReturn:
        logger.warning("single sign-on failed: %s", exception or error)
        _refuse(request, "The sign-on did not come to an end that could be trusted. Try again.")

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        known = sociallogin.account.extra_data
        nonce = known["id_token"].get("nonce")
        if not constant_time_compare(str(nonce or ""), sociallogin.state["nonce"]):
            self.on_authentication_error(request, None, error="the nonce is not the one that was sent")
        claims = {**known["id_token"], **known.get("userinfo", {})}
        groups = sign_on.groups_in(claims, settings.OIDC["groups_claim"])
        role = sign_on.role_of(groups, settings.OIDC["roles"], settings.OIDC["default_role"])
        if sociallogin.is_existing:
            _known(request, sociallogin.user, role, groups)
        else:
            _unknown(request, sociallogin, _name_of(claims), role, groups)


def _known(request: HttpRequest, user: Any, role: str, groups: list[str]) -> None:
    actor = _actor(request, user.get_username(), user)
    if not user.is_active:
        record(actor, "refuse-sign-on", user, reason="the account is disabled")
        _refuse(request, "This account is disabled. Ask an admin.")
    people.follow_groups(user.pk, role=role, actor=actor)
    if not role:
        record(actor, "refuse-sign-on", user, reason="in no group that gives a role", after=_audited(groups))
        _refuse_groups(request)
    record(actor, "sign-on", user, after={"role": role, **_audited(groups)})


def _unknown(request: HttpRequest, sociallogin: SocialLogin, name: str, role: str, groups: list[str]) -> None:
    actor = _actor(request, name)
    if not role:
        stranger = get_user_model()(username=name)
        record(actor, "refuse-sign-on", stranger, reason="in no group that gives a role", after=_audited(groups))
        _refuse_groups(request)
    try:
        user = people.create_signed_on(username=name, role=role, actor=actor)
    except DomainError as error:
        _refuse(request, f"No account could be made for {name}: {error.problem.message} Ask an admin.")
    sociallogin.email_addresses = []
    sociallogin.connect(request, user)
    record(_actor(request, name, user), "sign-on", user, after={"role": role, **_audited(groups)})


def _name_of(claims: dict[str, Any]) -> str:
    return str(claims.get("preferred_username") or claims.get("email") or claims["sub"])[:150]


def _audited(groups: list[str]) -> dict[str, Any]:
    return {"groups": sorted(group for group in groups if group in settings.OIDC["roles"])}


def _actor(request: HttpRequest, name: str, user: Any = None) -> Actor:
    """Nobody is signed in yet; who comes is who the provider says."""
    return Actor(
        name=name,
        source="web",
        user=user,
        request_id=getattr(request, "request_id", ""),
        address=request.META.get("REMOTE_ADDR", ""),
    )


def _refuse_groups(request: HttpRequest) -> NoReturn:
    _refuse(request, "None of your groups gives you a role here. Ask whoever runs Forebay which group you need.")


def _refuse(request: HttpRequest, why: str) -> NoReturn:
    raise ImmediateHttpResponse(render(request, "account/sign_on_refused.html", {"why": why}, status=403))
