"""Logging in for a token, and out again."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from knox.models import AuthToken
from rest_framework.test import APIClient

from controlplane.audit import people
from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from tests.api.conftest import PASSWORD, problem_of
from tests.factories import make_token, make_user

ADDRESS = "/api/v1/tokens"


def basic(username: str, password: str = PASSWORD) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def bearing(token: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return client


@pytest.fixture
def ada(db: None) -> User:
    return make_user("viewer", username="ada")


def login(user: User, **body: object) -> dict:
    response = APIClient().post(ADDRESS, body, format="json", **basic(user.username))
    assert response.status_code == 201, response.content
    return response.json()


def test_a_password_gives_a_token_that_opens_the_api(ada: User) -> None:
    made = login(ada)
    me = bearing(made["token"]).get("/api/v1/me").json()
    assert (me["username"], me["role"], me["via"]) == ("ada", "viewer", "token")
    assert me["token_expires_at"] == made["expires_at"]


def test_a_token_always_expires(ada: User) -> None:
    default = parse_datetime(login(ada)["expires_at"])
    chosen = parse_datetime(login(ada, expires_in_s=3600)["expires_at"])
    assert timedelta(days=29) < default - timezone.now() < timedelta(days=31)
    assert timedelta(minutes=59) < chosen - timezone.now() < timedelta(minutes=61)


@pytest.mark.parametrize("seconds", [0, -1, 59, 10**9, None, "soon"])
def test_an_unlawful_expiry_is_refused(seconds: object, ada: User) -> None:
    problem_of(APIClient().post(ADDRESS, {"expires_in_s": seconds}, format="json", **basic("ada")), 400)
    assert not AuthToken.objects.exists()


def test_only_a_hash_of_the_token_is_kept(ada: User) -> None:
    plain = login(ada)["token"]
    token = AuthToken.objects.get()
    assert plain not in (token.digest, token.token_key)
    event = AuditEvent.objects.get(verb="issue-token")
    assert event.actor == ada
    assert plain not in str(event.after)


def test_an_expired_token_opens_nothing(ada: User) -> None:
    client = bearing(login(ada)["token"])
    AuthToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    problem_of(client.get("/api/v1/me"), 401)


def test_a_token_makes_no_token(ada: User) -> None:
    problem_of(bearing(login(ada)["token"]).post(ADDRESS, {}, format="json"), 401)
    assert AuthToken.objects.count() == 1


def test_a_session_makes_a_token_only_with_the_csrf_token(ada: User) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(ada)
    problem_of(client.post(ADDRESS, {}, format="json"), 403)
    client.cookies["csrftoken"] = "a" * 32
    assert client.post(ADDRESS, {}, format="json", HTTP_X_CSRFTOKEN="a" * 32).status_code == 201


def test_an_account_without_a_role_gets_none(db: None) -> None:
    user = make_user("", username="nora")
    problem_of(APIClient().post(ADDRESS, {}, format="json", **basic("nora")), 403)
    assert not AuthToken.objects.filter(user=user).exists()


def test_a_wrong_password_tells_nothing_of_the_name(ada: User) -> None:
    wrong = problem_of(APIClient().post(ADDRESS, {}, format="json", **basic("ada", "wrong")), 401)
    unknown = problem_of(APIClient().post(ADDRESS, {}, format="json", **basic("nobody", "wrong")), 401)
    assert wrong["detail"] == unknown["detail"] == "Wrong username or password."


def test_many_wrong_passwords_lock_the_name_even_to_the_right_one(ada: User, settings: object) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    for _ in range(3):
        response = APIClient().post(ADDRESS, {}, format="json", **basic("ada", "wrong"))
    response = APIClient().post(ADDRESS, {}, format="json", **basic("ada"))
    body = problem_of(response, 429)
    assert int(response["Retry-After"]) > 0
    assert "Too many wrong passwords" in body["detail"]


def test_tries_are_limited_by_address_right_or_wrong(ada: User) -> None:
    statuses = [
        APIClient().post(ADDRESS, {}, format="json", HTTP_X_FORWARDED_FOR=f"10.0.0.{n}", **basic(f"no{n}")).status_code
        for n in range(21)
    ]
    assert statuses == [401] * 20 + [429], "a forwarded address written by the caller opens no new allowance"
    assert APIClient().post(ADDRESS, {}, format="json", REMOTE_ADDR="10.1.1.1", **basic("ada")).status_code == 201


def test_my_tokens_are_mine_alone(ada: User) -> None:
    mine = login(ada)
    login(make_user("admin", username="root"))
    [shown] = bearing(mine["token"]).get(ADDRESS).json()
    assert (shown["id"], shown["current"]) == (mine["id"], True)
    assert "token" not in shown


def test_logging_out_ends_the_token_it_came_with(ada: User) -> None:
    kept, ended = login(ada), login(ada)
    assert bearing(ended["token"]).delete(f"{ADDRESS}/current").status_code == 204
    problem_of(bearing(ended["token"]).get("/api/v1/me"), 401)
    assert bearing(kept["token"]).get("/api/v1/me").status_code == 200
    assert AuditEvent.objects.filter(verb="revoke-token", actor=ada).count() == 1


def test_a_token_can_be_ended_by_its_id_but_not_another_persons(ada: User) -> None:
    other, mine = login(make_user("admin", username="root")), login(ada)
    problem_of(bearing(mine["token"]).delete(f"{ADDRESS}/{other['id']}"), 404)
    assert bearing(mine["token"]).delete(f"{ADDRESS}/{mine['id']}").status_code == 204
    assert AuthToken.objects.get().user.username == "root"


def test_logging_out_everywhere_ends_all_of_mine(ada: User) -> None:
    first = login(ada)
    login(ada)
    login(make_user("admin", username="root"))
    assert bearing(first["token"]).delete(ADDRESS).status_code == 204
    assert AuthToken.objects.get().user.username == "root"


def test_current_without_a_token_is_404(ada: User) -> None:
    client = APIClient()
    client.force_login(ada)
    problem_of(client.delete(f"{ADDRESS}/current"), 404)


def test_a_password_that_an_admin_sets_ends_the_tokens_had_with_the_old_one(ada: User, actor: Actor) -> None:
    mine, other = login(ada), login(make_user("viewer", username="bob"))
    people.set_password(ada.pk, actor=actor)
    problem_of(bearing(mine["token"]).get("/api/v1/me"), 401)
    assert bearing(other["token"]).get("/api/v1/me").status_code == 200
    assert AuditEvent.objects.filter(verb="revoke-token", subject_id=ada.pk).exists()


def test_what_became_of_a_token_and_its_user_counts_at_the_next_request(ada: User) -> None:
    """A token that was seen lately is asked for in one query; what it is worth is read each time all the same."""
    token = make_token(ada, scope="operate")
    client = bearing(token)

    def seen() -> tuple[int, str | None]:
        answer = client.get("/api/v1/me")
        return answer.status_code, answer.json().get("role")

    assert [seen(), seen()] == [(200, "viewer")] * 2
    ada.groups.set([Group.objects.get_or_create(name="operator")[0]])
    assert seen() == (200, "operator")
    ada.groups.clear()
    assert seen() == (200, "none")
    User.objects.filter(pk=ada.pk).update(is_superuser=True)
    assert seen() == (200, "admin")
    assert client.get("/api/v1/service-accounts").status_code == 403, "the scope is less than the role"
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert seen()[0] == 401
    User.objects.filter(pk=ada.pk).update(is_active=True)
    assert seen()[0] == 200
    AuthToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    assert seen()[0] == 401
