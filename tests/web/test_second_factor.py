"""Codes from an authenticator app: set up, asked for at every door, lost, required."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from controlplane.audit import people, roles, second_factor
from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.management import accounts
from tests import factories
from tests.api.conftest import problem_of
from tests.api.test_tokens import ADDRESS, basic, bearing
from tests.web.conftest import Clients

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def no_counts_of_other_tests() -> None:
    cache.clear()


def code_of(secret: str, steps: int = 0) -> str:
    """As the telephone shows it; `steps` of half a minute later. Each is taken once, so a test asks for several."""
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps))


@pytest.fixture
def secret() -> str:
    return generate_totp_secret()


@pytest.fixture
def ada(db: None, secret: str) -> User:
    user = factories.make_user("admin", username="ada")
    TOTP.activate(user, secret)
    return user


def sign_in(client: Client, name: str = "ada", **query: str) -> object:
    return client.post("/accounts/login/", {"login": name, "password": PASSWORD}, **query)


def confirm(client: Client) -> None:
    """Who changes the second factor says the password again, however fresh the session."""
    page = client.get(reverse("mfa_activate_totp"), follow=True).content.decode()
    assert "Confirm it is you" in page
    assert client.post(reverse("account_reauthenticate"), {"password": PASSWORD}).status_code == 302


def test_an_account_sets_it_up_and_is_asked_from_then_on(db: None, django_capture_on_commit_callbacks: Any) -> None:
    factories.make_user("operator", username="olga")
    client = Client()
    sign_in(client, "olga")
    confirm(client)
    page = client.get(reverse("mfa_activate_totp")).content.decode()
    secret = re.search(r'<code id="secret">(\w+)</code>', page)[1]
    assert "data:image/svg+xml;base64," in page
    wrong = client.post(reverse("mfa_activate_totp"), {"code": "000000"}).content.decode()
    assert "Nothing was changed" in wrong
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(reverse("mfa_activate_totp"), {"code": code_of(secret)}, follow=True)
    assert "10 of 10 left" in answer.content.decode()
    events = {event.verb: event for event in AuditEvent.objects.all()}
    assert events["add-second-factor"].actor_name == "olga"
    assert secret not in str([event.__dict__ for event in events.values()])
    assert "2nd factor" in _users_page()

    client = Client()
    assert sign_in(client, "olga").headers["Location"] == reverse("mfa_authenticate")
    assert client.get("/").status_code == 302, "the password alone opens nothing"
    assert "authenticator app" in client.get(reverse("mfa_authenticate")).content.decode()
    assert client.post(reverse("mfa_authenticate"), {"code": "123"}).status_code == 200
    assert client.get("/").status_code == 302
    assert client.post(reverse("mfa_authenticate"), {"code": code_of(secret, 1)}).headers["Location"] == "/"
    assert client.get("/").status_code == 200


def _users_page() -> str:
    client = Client()
    client.force_login(factories.make_user("admin"), backend="django.contrib.auth.backends.ModelBackend")
    return client.get(reverse("web:users")).content.decode()


def test_the_secret_is_not_readable_in_the_database(ada: User, secret: str) -> None:
    assert secret not in str(Authenticator.objects.get().data)


def test_a_code_opens_once(ada: User, secret: str) -> None:
    code = code_of(secret)
    assert second_factor.has(ada)
    for expected in ("/", None):
        client = Client()
        sign_in(client)
        answer = client.post(reverse("mfa_authenticate"), {"code": code})
        assert answer.headers.get("Location") == expected


def test_a_recovery_code_opens_in_its_place_once(
    ada: User, secret: str, django_capture_on_commit_callbacks: Any
) -> None:
    client = Client()
    sign_in(client)
    client.post(reverse("mfa_authenticate"), {"code": code_of(secret)})
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    with django_capture_on_commit_callbacks(execute=True):
        client.post(reverse("mfa_generate_recovery_codes"))
    page = client.get(reverse("mfa_view_recovery_codes")).content.decode()
    first = re.search(r'<code id="codes"[^>]*>(\d+)', page)[1]
    assert AuditEvent.objects.get(verb="renew-recovery-codes").actor_name == "ada"
    for opened in (True, False):
        client = Client()
        sign_in(client)
        client.post(reverse("mfa_authenticate"), {"code": first})
        assert (client.get("/").status_code == 200) is opened


def test_guessing_is_stopped(ada: User, secret: str) -> None:
    client = Client()
    sign_in(client)
    for _ in range(5):
        client.post(reverse("mfa_authenticate"), {"code": "000000"})
    page = client.post(reverse("mfa_authenticate"), {"code": code_of(secret)}).content.decode()
    assert "Too many" in page
    assert client.get("/").status_code == 302


def test_a_rest_token_by_password_asks_for_the_code_as_well(ada: User, secret: str) -> None:
    def ask(**body: str) -> object:
        return APIClient().post(ADDRESS, body, format="json", **basic("ada"))

    assert problem_of(ask(), 401)["problems"][0]["code"] == "otp_required"
    assert problem_of(ask(otp="000000"), 401)["problems"][0]["code"] == "otp_wrong"
    assert not ada.auth_token_set.exists()
    code = code_of(secret)
    made = ask(otp=code)
    assert made.status_code == 201, made.content
    assert bearing(made.json()["token"]).get("/api/v1/me").status_code == 200
    problem_of(ask(otp=code), 401)


def test_a_wrong_password_does_not_tell_that_there_is_a_second_factor(ada: User) -> None:
    problem = problem_of(APIClient().post(ADDRESS, {}, format="json", **basic("ada", "wrong")), 401)
    assert problem["detail"] == "Wrong username or password."


@pytest.mark.parametrize("start", [None, "viewer", "staff"])
def test_django_s_admin_is_no_way_around(start: str | None, ada: User) -> None:
    """Nor for staff who are signed in already and would become somebody else there."""
    ada.is_staff = ada.is_superuser = True
    ada.save()
    client = Client()
    if start:
        user = factories.make_user("viewer")
        user.is_staff = start == "staff"
        user.save()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    before = client.session.get("_auth_user_id") if start else None
    client.post("/admin/login/", {"username": "ada", "password": PASSWORD, "next": "/admin/"})
    assert client.session.get("_auth_user_id") == before
    if not start:
        assert client.get("/admin/", follow=True).redirect_chain[-1][0].startswith("/accounts/login/")


def test_an_admin_resets_it_and_the_trail_says_so(ada: User, as_role: Clients) -> None:
    answer = as_role("admin").post(reverse("web:user-second-factor", args=[ada.pk]), follow=True)
    assert "signs in with the password alone now" in answer.content.decode()
    event = AuditEvent.objects.get(verb="reset-second-factor")
    assert (event.subject_name, event.before) == ("ada", {"second_factor": ["authenticator app"]})
    client = Client()
    sign_in(client)
    assert client.get("/").status_code == 200
    again = as_role("admin").post(reverse("web:user-second-factor", args=[ada.pk]), follow=True)
    assert "has no second factor" in again.content.decode()


def test_the_command_for_a_lost_admin_resets_it_too(ada: User) -> None:
    password = accounts.make_admin("ada", actor=Actor.system("test"))
    client = Client()
    client.post("/accounts/login/", {"login": "ada", "password": password})
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("required", ["operator", "admin"])
@pytest.mark.parametrize("role", roles.ROLES)
def test_where_it_is_required_a_role_is_worth_less_without(
    role: str, required: str, db: None, settings: object
) -> None:
    settings.REQUIRE_TOTP = required
    user = factories.make_user(role)
    most = roles.Level(roles.ROLES[required] - 1)
    assert roles.level_of(user) == min(roles.ROLES[role], most)
    TOTP.activate(user, generate_totp_secret())
    assert roles.level_of(user) == roles.ROLES[role]


def test_the_pages_and_rest_say_what_to_do(as_role: Clients, settings: object) -> None:
    settings.REQUIRE_TOTP = "operator"
    client = as_role("admin")
    assert reverse("mfa_activate_totp") in client.get("/").content.decode()
    refused = client.get(reverse("web:users"))
    assert refused.status_code == 403
    assert "set up an authenticator app" in refused.content.decode()
    assert "set up an authenticator app" in problem_of(client.get("/api/v1/keys"), 403)["detail"]


def test_who_must_have_it_cannot_turn_it_off(ada: User, secret: str, settings: object) -> None:
    settings.REQUIRE_TOTP = "admin"
    client = Client()
    sign_in(client)
    client.post(reverse("mfa_authenticate"), {"code": code_of(secret)})
    assert client.post(reverse("mfa_deactivate_totp")).headers["Location"].startswith("/accounts/reauthenticate/")
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    page = client.post(reverse("mfa_deactivate_totp")).content.decode()
    assert "Nothing was changed" in page
    assert second_factor.has(ada)
    settings.REQUIRE_TOTP = ""
    client.post(reverse("mfa_deactivate_totp"))
    assert not second_factor.has(ada)
    assert AuditEvent.objects.get(verb="remove-second-factor").actor_name == "ada"


def test_programs_are_not_asked(db: None, settings: object, actor: Actor) -> None:
    settings.REQUIRE_TOTP = "operator"
    user = people.new_user(username="ci", role="admin")
    assert roles.level_of(user) == roles.Level.ADMIN


def test_requiring_it_does_not_let_the_last_admin_be_taken_away(db: None, settings: object, actor: Actor) -> None:
    from controlplane.domain.problems import DomainError

    settings.REQUIRE_TOTP = "admin"
    user = factories.make_user("admin")
    with pytest.raises(DomainError, match="is the only admin"):
        people.set_active(user.pk, active=False, actor=actor)
