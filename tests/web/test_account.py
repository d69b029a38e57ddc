"""Signing in and out, users and roles, keys and tokens."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken

from controlplane.audit.models import AuditEvent
from controlplane.audit.roles import level_of
from controlplane.gateway.models import ApiKey
from tests import factories
from tests.web.conftest import Clients

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def no_counts_of_other_tests() -> None:
    cache.clear()


def sign_in(client: Client, name: str, password: str, **headers: str) -> object:
    return client.post("/accounts/login/", {"login": name, "password": password}, **headers)


def test_signing_in_leads_to_the_fleet_and_out_again(db: None) -> None:
    user, client = factories.make_user("viewer"), Client()
    assert sign_in(client, user.username, PASSWORD).headers["Location"] == "/"
    assert client.get("/").status_code == 200
    assert "Nothing in the fleet changes" in client.get("/accounts/logout/").content.decode()
    client.post("/accounts/logout/")
    assert client.get("/").status_code == 302


def test_a_wrong_password_says_no_more_than_that(db: None) -> None:
    user = factories.make_user("viewer")
    known = sign_in(Client(), user.username, "wrong").content.decode()
    unknown = sign_in(Client(), "nobody-here", "wrong").content.decode()
    assert "not correct" in known
    assert "not correct" in unknown
    assert "Sign in" in known


def test_many_wrong_passwords_lock_the_name_out(db: None, settings: object) -> None:
    settings.ACCOUNT_RATE_LIMITS = False  # this is about the lock that comes after them
    user, client = factories.make_user("viewer"), Client()
    for _ in range(settings.AXES_FAILURE_LIMIT):
        answer = sign_in(client, user.username, "wrong")
    assert answer.status_code == 429
    assert "Too many wrong passwords" in answer.content.decode()
    assert sign_in(client, user.username, PASSWORD).status_code == 429


def test_nobody_can_sign_up(db: None) -> None:
    Client().post("/accounts/signup/", {"username": "mallory", "password1": PASSWORD, "password2": PASSWORD})
    assert not get_user_model().objects.exists()


def test_an_admin_makes_a_user_whose_password_is_shown_once(as_role: Clients) -> None:
    client = as_role("admin")
    answer = client.post(reverse("web:users"), {"username": "olga", "role": "operator"})
    password = answer.content.decode().split('<code id="secret">')[1].split("<")[0]
    assert answer["Cache-Control"] == "no-store"
    assert sign_in(Client(), "olga", password).status_code == 302
    event = AuditEvent.objects.get(verb="create-user")
    assert event.after == {"role": "operator"}
    assert password not in str(event.__dict__)


def test_roles_and_access_change_at_once(as_role: Clients) -> None:
    admin, user = as_role("admin"), factories.make_user("viewer")
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    admin.post(reverse("web:user-role", args=[user.pk]), {"role": "operator"})
    assert client.get(reverse("web:register")).status_code == 200
    admin.post(reverse("web:user-disable", args=[user.pk]))
    assert client.get("/").status_code == 302
    admin.post(reverse("web:user-enable", args=[user.pk]))
    assert level_of(get_user_model().objects.get(pk=user.pk)).name == "OPERATOR"


@pytest.mark.parametrize(("verb", "form"), [("role", {"role": "viewer"}), ("disable", {})])
def test_the_last_admin_stays(verb: str, form: dict, as_role: Clients) -> None:
    client = as_role("admin")
    admin = get_user_model().objects.get()
    answer = client.post(reverse(f"web:user-{verb}", args=[admin.pk]), form, follow=True)
    assert "is the only admin" in answer.content.decode()
    admin.refresh_from_db()
    assert admin.is_active
    assert level_of(admin).name == "ADMIN"


def test_a_new_password_ends_the_old_one(as_role: Clients) -> None:
    user = factories.make_user("viewer")
    answer = as_role("admin").post(reverse("web:user-password", args=[user.pk]))
    password = answer.content.decode().split('<code id="secret">')[1].split("<")[0]
    assert sign_in(Client(), user.username, PASSWORD).status_code == 200
    assert sign_in(Client(), user.username, password).status_code == 302


def test_an_api_key_is_shown_once_and_revoked(as_role: Clients) -> None:
    factories.make_deployment("chat")
    client = as_role("admin")
    form = {"name": "billing", "deployments": ["chat"], "requests_per_minute": "60", "expires_at": "2999-01-31"}
    page = client.post(reverse("web:keys"), form).content.decode()
    key = ApiKey.objects.get()
    plain = page.split('<code id="secret">')[1].split("<")[0]
    assert plain.startswith("fb-")
    assert (key.deployments, key.requests_per_minute, key.expires_at.date().isoformat()) == (["chat"], 60, "2999-01-31")
    assert plain not in client.get(reverse("web:keys")).content.decode()
    client.post(reverse("web:key-revoke", args=[key.pk]))
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_a_rest_token_works_until_it_is_revoked(as_role: Clients) -> None:
    client = as_role("viewer")
    page = client.post(reverse("web:rest-token-new"), {"ttl_s": "86400", "scope": "read"}).content.decode()
    plain = page.split('<code id="secret">')[1].split("<")[0]
    bearer = {"Authorization": f"Token {plain}"}
    assert Client().get("/api/v1/me", headers=bearer).json()["role"] == "viewer"
    token = AuthToken.objects.get()
    as_role("admin").post(reverse("web:rest-token-revoke", args=[token.token_key]))
    assert AuthToken.objects.exists(), "a token is ended by its own user only"
    client.post(reverse("web:rest-token-revoke", args=[token.token_key]))
    assert Client().get("/api/v1/me", headers=bearer).status_code == 401


def test_everybody_can_change_the_own_password(as_role: Clients) -> None:
    client = as_role("viewer")
    page = client.get("/accounts/password/change/")
    assert "Change password" in page.content.decode()
    form = {"oldpassword": PASSWORD, "password1": "another long one 7", "password2": "another long one 7"}
    assert client.post("/accounts/password/change/", form).status_code == 302
    name = get_user_model().objects.get().username
    assert sign_in(Client(), name, PASSWORD).status_code == 200
    assert sign_in(Client(), name, "another long one 7").status_code == 302


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("password/reset/", "create_admin NAME"),
        ("signup/", "made by an admin"),
        ("inactive/", "an admin enables it"),
    ],
)
def test_the_other_account_pages_wear_our_frame_and_say_who_helps(path: str, way: str, db: None) -> None:
    page = Client().get(f"/accounts/{path}").content.decode()
    assert "css/base.css" in page and way in page
