"""Accounts of programs: no password, no sign-in, tokens by an admin, known as such in the trail."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from controlplane.audit import people, service_accounts
from controlplane.audit.models import AuditEvent, ServiceAccount
from controlplane.audit.services import Actor
from controlplane.domain.problems import DomainError
from controlplane.management import accounts
from tests.api.conftest import World, problem_of
from tests.api.test_tokens import basic, bearing
from tests.factories import make_user

ADDRESS = "/api/v1/service-accounts"


@pytest.fixture
def account(admin: APIClient) -> dict:
    response = admin.post(ADDRESS, {"name": "ci", "role": "operator", "description": "rolls out"}, format="json")
    assert response.status_code == 201, response.content
    return response.json()


def token_for(admin: APIClient, account: dict, **asked: object) -> dict:
    response = admin.post(f"{ADDRESS}/{account['id']}/tokens", asked, format="json")
    assert response.status_code == 201, response.content
    assert response["Cache-Control"] == "no-store"
    return response.json()


def test_it_is_made_without_a_password(admin: APIClient, account: dict) -> None:
    assert (account["name"], account["role"], account["active"], account["description"]) == (
        "ci", "operator", True, "rolls out",
    )  # fmt: skip
    user = get_user_model().objects.get(username="ci")
    assert not user.has_usable_password()
    event = AuditEvent.objects.get(verb="create-service-account")
    assert (event.subject_name, event.after) == ("ci", {"role": "operator", "description": "rolls out"})


@pytest.mark.parametrize("password", ["", "None", "!", "ci"])
def test_nobody_signs_in_as_a_program(password: str, account: dict) -> None:
    client = Client()
    client.post("/accounts/login/", {"login": "ci", "password": password or " "})
    assert client.get("/").status_code == 302
    problem_of(APIClient().post("/api/v1/tokens", {}, format="json", **basic("ci", password)), 401)


def test_it_gets_no_password_later(account: dict, actor: Actor) -> None:
    user = get_user_model().objects.get(username="ci")
    with pytest.raises(DomainError, match="has no password"):
        people.set_password(user.pk, actor=actor)


def test_its_tokens_work_and_the_trail_tells_the_program(admin: APIClient, account: dict, world: World) -> None:
    made = token_for(admin, account, expires_in_s=3600, name="pipeline")
    client = bearing(made["token"])
    me = client.get("/api/v1/me").json()
    assert (me["username"], me["kind"], me["role"], me["scope"]) == ("ci", "service", "operator", "operate")
    assert client.post(f"/api/v1/nodes/{world.node.pk}/cordon", {"reason": "work"}, format="json").status_code == 200
    event = AuditEvent.objects.get(verb="cordon")
    assert (event.actor_name, event.source, event.reason) == ("service ci", "rest", "work")
    given = AuditEvent.objects.get(verb="issue-token", subject_name="ci")
    assert given.actor_name.startswith("admin-")


def test_a_token_ends_when_an_admin_says_so(admin: APIClient, account: dict) -> None:
    kept, ended = token_for(admin, account), token_for(admin, account)
    assert admin.delete(f"{ADDRESS}/{account['id']}/tokens/{ended['id']}").status_code == 204
    problem_of(admin.delete(f"{ADDRESS}/{account['id']}/tokens/{ended['id']}"), 404)
    problem_of(bearing(ended["token"]).get("/api/v1/me"), 401)
    assert bearing(kept["token"]).get("/api/v1/me").status_code == 200
    assert [row["id"] for row in admin.get(f"{ADDRESS}/{account['id']}/tokens").json()] == [kept["id"]]


def test_disabling_it_shuts_its_tokens_out(admin: APIClient, account: dict) -> None:
    client = bearing(token_for(admin, account)["token"])
    changed = admin.patch(f"{ADDRESS}/{account['id']}", {"active": False, "role": "viewer"}, format="json").json()
    assert (changed["active"], changed["role"]) == (False, "viewer")
    problem_of(client.get("/api/v1/me"), 401)
    admin.patch(f"{ADDRESS}/{account['id']}", {"active": True}, format="json")
    assert client.get("/api/v1/me").json()["role"] == "viewer"


def test_a_change_that_is_refused_changes_nothing(admin: APIClient, account: dict) -> None:
    problem_of(admin.patch(f"{ADDRESS}/{account['id']}", {"description": "x", "role": "king"}, format="json"), 400)
    assert ServiceAccount.objects.get().description == "rolls out"


def test_a_name_is_taken_once(admin: APIClient, account: dict) -> None:
    problem_of(admin.post(ADDRESS, {"name": "CI", "role": "viewer"}, format="json"), 409)


def test_a_program_is_not_the_other_admin(db: None, actor: Actor) -> None:
    person = make_user("admin")
    service_accounts.create(name="ci", role="admin", actor=actor)
    with pytest.raises(DomainError, match="is the only admin"):
        people.set_active(person.pk, active=False, actor=actor)


def test_nor_the_first(db: None, actor: Actor) -> None:
    service_accounts.create(name="ci", role="admin", actor=actor)
    assert accounts.ensure_admin() is not None


def test_an_admin_does_it_all_on_pages(db: None) -> None:
    client = Client()
    client.force_login(make_user("admin"), backend="django.contrib.auth.backends.ModelBackend")
    form = {"name": "ci", "role": "operator", "description": "rolls out"}
    page = client.post(reverse("web:service-new"), form, follow=True).content.decode()
    account = ServiceAccount.objects.get()
    assert "It has no token" in page
    assert "rolls out" in page
    form = {"name": "pipeline", "scope": "read", "ttl_s": "86400"}
    shown = client.post(reverse("web:service-token-new", args=[account.pk]), form).content.decode()
    plain = shown.split('<code id="secret">')[1].split("<")[0]
    assert bearing(plain).get("/api/v1/me").json()["scope"] == "read"
    users = client.get(reverse("web:users")).content.decode()
    people_part, programs = users.split('id="services"')
    assert ">ci<" in programs
    assert ">ci<" not in people_part
    token = bearing(plain).get("/api/v1/tokens").json()[0]["id"]
    client.post(reverse("web:service-token-revoke", args=[account.pk, token]))
    assert bearing(plain).get("/api/v1/me").status_code == 401
    wrong = client.post(reverse("web:service-token-new", args=[account.pk]), {"scope": "admin", "ttl_s": "86400"})
    assert wrong.status_code == 422, "more than the account's role is not on offer"
