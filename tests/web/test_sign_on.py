"""Single sign-on against a provider that signs for real: who comes in, as what, and what is not believed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from controlplane.audit import people, tokens
from controlplane.audit.models import AuditEvent
from controlplane.audit.roles import level_of
from controlplane.audit.services import Actor
from tests import factories
from tests.api.test_tokens import bearing
from tests.web.oidc_provider import CLIENT, SECRET, OidcProvider


@pytest.fixture
def provider(db: None, settings: Any) -> Iterator[OidcProvider]:
    made = OidcProvider()
    settings.OIDC = {
        "issuer": made.url, "client_id": CLIENT, "client_secret": SECRET, "name": "Example SSO",
        "scopes": ["openid", "profile", "groups"], "groups_claim": "groups",
        "roles": {"forebay-admins": "admin", "oncall": "operator"}, "default_role": "",
    }  # fmt: skip
    yield made
    made.stop()


def to_provider(client: Client, **query: str) -> str:
    """Where the browser is sent."""
    answer = client.get(reverse("web:sign-on"), query)
    assert answer.status_code == 302, answer.content
    return answer["Location"]


def through(address: str) -> str:
    """The person agrees there, and the browser is sent back here."""
    with requests.get(address, allow_redirects=False, timeout=5) as answer:
        back = urlsplit(answer.headers["Location"])
    return f"{back.path}?{back.query}"


def sign_on(client: Client, **query: str) -> HttpResponse:
    return client.get(through(to_provider(client, **query)))


def refused(answer: HttpResponse, client: Client, words: str) -> None:
    assert answer.status_code == 403, answer.content
    assert words in answer.content.decode()
    assert client.get("/").status_code == 302, "nobody is signed in"


def test_the_login_page_offers_it_only_where_it_is_set_up(provider: OidcProvider, settings: Any) -> None:
    page = Client().get("/accounts/login/?next=/nodes/").content.decode()
    assert "Sign in with Example SSO" in page
    assert "/sign-on/?next=/nodes/" in page
    settings.OIDC = None
    assert "Example SSO" not in Client().get("/accounts/login/").content.decode()
    assert Client().get(reverse("web:sign-on")).status_code == 404
    assert Client().get(reverse("web:sign-on-back")).status_code == 404


def test_what_is_sent_along(provider: OidcProvider) -> None:
    sent = dict(parse_qsl(urlsplit(to_provider(Client(), auth_params="prompt=none", scope="evil")).query))
    assert (sent["client_id"], sent["response_type"]) == (CLIENT, "code")
    assert set(sent["scope"].split()) == {"openid", "profile", "groups"}
    assert sent["redirect_uri"] == "http://127.0.0.1:8000/sign-on/back"
    assert sent["code_challenge_method"] == "S256"
    assert len(sent["nonce"]) >= 32
    assert "prompt" not in sent


def test_the_first_sign_on_makes_an_account_of_the_groups_role(provider: OidcProvider) -> None:
    provider.person |= {"groups": ["everybody", "oncall"]}
    client = Client()
    assert sign_on(client, next="/nodes/")["Location"] == "/nodes/"
    assert client.get("/").status_code == 200
    user = get_user_model().objects.get()
    assert (user.username, level_of(user).name, user.has_usable_password()) == ("ada", "OPERATOR", False)
    made, came = AuditEvent.objects.order_by("id")
    assert (made.verb, made.actor_name, made.after) == (
        "create-user",
        "ada",
        {"role": "operator", "by": "single sign-on"},
    )
    assert (came.verb, came.after) == ("sign-on", {"role": "operator", "groups": ["oncall"]})
    assert came.request_id and came.address


@pytest.mark.parametrize("next_", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_it_leads_nowhere_else(next_: str, provider: OidcProvider) -> None:
    provider.person |= {"groups": ["oncall"]}
    assert sign_on(Client(), next=next_)["Location"] == "/"


def test_the_role_is_read_anew_each_time(provider: OidcProvider, actor: Actor) -> None:
    for groups, role in (
        (["forebay-admins", "oncall"], "ADMIN"),
        (["oncall"], "OPERATOR"),
        (["forebay-admins"], "ADMIN"),
    ):
        provider.person |= {"groups": groups}
        sign_on(Client())
        assert level_of(get_user_model().objects.get()).name == role
    changes = AuditEvent.objects.filter(verb="set-role").order_by("id")
    assert [(event.before["role"], event.after["role"]) for event in changes] == [
        ("admin", "operator"), ("operator", "admin"),
    ]  # fmt: skip
    assert {event.reason for event in changes} == {"groups at single sign-on"}


def test_who_left_the_groups_is_refused_and_the_tokens_open_nothing(provider: OidcProvider, actor: Actor) -> None:
    provider.person |= {"groups": ["oncall"]}
    sign_on(Client())
    user = get_user_model().objects.get()
    _, plain = tokens.issue(user=user, ttl_s=3600, actor=actor)
    provider.person |= {"groups": ["everybody"]}
    client = Client()
    refused(sign_on(client), client, "None of your groups gives you a role")
    assert bearing(plain).get("/api/v1/nodes").status_code == 403
    assert AuditEvent.objects.get(verb="refuse-sign-on").subject_name == "ada"


def test_a_stranger_without_a_group_is_refused_and_leaves_no_account(provider: OidcProvider) -> None:
    client = Client()
    refused(sign_on(client), client, "None of your groups gives you a role")
    assert not get_user_model().objects.exists()
    event = AuditEvent.objects.get()
    assert (event.verb, event.subject_name, event.subject_id) == ("refuse-sign-on", "ada", None)


def test_or_looks_where_that_is_set(provider: OidcProvider, settings: Any) -> None:
    settings.OIDC = {**settings.OIDC, "default_role": "viewer"}
    sign_on(Client())
    assert level_of(get_user_model().objects.get()).name == "VIEWER"


def test_a_local_account_of_the_same_name_is_not_taken_over(provider: OidcProvider) -> None:
    factories.make_user("admin", username="Ada")
    provider.person |= {"groups": ["oncall"], "email": "ada@example.com", "email_verified": True}
    client = Client()
    refused(sign_on(client), client, "There is a user ada already")


def test_a_disabled_account_stays_out(provider: OidcProvider, actor: Actor) -> None:
    provider.person |= {"groups": ["oncall"]}
    sign_on(Client())
    people.set_active(get_user_model().objects.get().pk, active=False, actor=actor)
    client = Client()
    refused(sign_on(client), client, "This account is disabled")


def forged(provider: OidcProvider) -> None:
    provider.signing_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def unsigned(provider: OidcProvider) -> None:
    def spoil(token: str) -> str:
        head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "k1"}).encode()).decode().rstrip("=")
        return f"{head}.{token.split('.')[1]}."

    provider.spoil_token = spoil


def signed_with_the_secret(provider: OidcProvider) -> None:
    provider.spoil_token = lambda token: jwt.encode(
        jwt.decode(token, options={"verify_signature": False}), SECRET * 4, algorithm="HS256", headers={"kid": "k1"}
    )


def with_claims(**changes: Any) -> Any:
    def spoil(provider: OidcProvider) -> None:
        provider.spoil_claims = lambda claims: {**claims, **changes}

    return spoil


def without(name: str) -> Any:
    def spoil(provider: OidcProvider) -> None:
        provider.spoil_claims = lambda claims: {key: value for key, value in claims.items() if key != name}

    return spoil


def of_another_person(provider: OidcProvider) -> None:
    provider.spoil_userinfo = lambda told: {**told, "sub": "somebody else", "groups": ["forebay-admins"]}


def of_another_issuer(provider: OidcProvider) -> None:
    provider.spoil_discovery = lambda document: {**document, "issuer": "https://evil.example"}


def rubbish(provider: OidcProvider) -> None:
    provider.spoil_token = lambda token: "rubbish"


SPOILT = {
    "a wrong signature": forged,
    "no signature": unsigned,
    "the secret as key": signed_with_the_secret,
    "a wrong nonce": with_claims(nonce="another"),
    "no nonce": without("nonce"),
    "a wrong audience": with_claims(aud="another"),
    "a wrong issuer": with_claims(iss="https://evil.example"),
    "expired": with_claims(exp=1),
    "no expiry": without("exp"),
    "userinfo of another": of_another_person,
    "discovery of another": of_another_issuer,
    "no token at all": rubbish,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_cannot_be_trusted_opens_nothing(spoil: Any, provider: OidcProvider) -> None:
    provider.person |= {"groups": ["forebay-admins"]}
    client = Client()
    address = to_provider(client)
    spoil(provider)
    refused(client.get(through(address)), client, "could be trusted")
    assert not get_user_model().objects.exists()


def test_a_wrong_state_opens_nothing(provider: OidcProvider) -> None:
    provider.person |= {"groups": ["forebay-admins"]}
    victim, attacker = Client(), Client()
    to_provider(victim)
    refused(victim.get(through(to_provider(attacker))), victim, "could be trusted")
    refused(victim.get(reverse("web:sign-on-back")), victim, "could be trusted")


def test_a_code_works_once(provider: OidcProvider) -> None:
    provider.person |= {"groups": ["oncall"]}
    client = Client()
    back = through(to_provider(client))
    client.get(back)
    client.logout()
    refused(client.get(back), client, "could be trusted")


def test_a_refusal_over_there_is_a_page_here(provider: OidcProvider) -> None:
    client = Client()
    state = dict(parse_qsl(urlsplit(to_provider(client)).query))["state"]
    answer = client.get(reverse("web:sign-on-back"), {"error": "access_denied", "state": state})
    refused(answer, client, "could be trusted")


def test_a_provider_that_is_gone_is_a_page_too(provider: OidcProvider) -> None:
    provider.stop()
    client = Client()
    refused(client.get(reverse("web:sign-on")), client, "could be trusted")
    provider.__post_init__()  # for the fixture to stop
