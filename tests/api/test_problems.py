"""Each kind of error leaves as a problem document that says what to do."""

from __future__ import annotations

import json

import pytest
from django.db import OperationalError
from django.test import Client
from rest_framework.test import APIClient

from controlplane.api.documents import UNCHANGED
from controlplane.api.parsers import MAX_BODY_BYTES
from tests.api.conftest import PASSWORD, World, problem_of
from tests.factories import make_user


def test_without_a_login_the_challenge_names_the_scheme(db: None) -> None:
    response = APIClient().get("/api/v1/nodes")
    body = problem_of(response, 401)
    assert body["type"] == "urn:forebay:problem:not-authenticated"
    assert response["WWW-Authenticate"] == "Token"
    assert "unchanged" not in body, "a read changes nothing, so it says nothing of it"


@pytest.mark.parametrize("token", ["nonsense", "two words", "caf\u00e9", "x" * 9000, "\u00ff\u00fe"])
def test_a_token_that_is_none_is_401(token: str, db: None) -> None:
    problem_of(APIClient().get("/api/v1/nodes", HTTP_AUTHORIZATION=f"Token {token}"), 401)


def test_a_role_that_is_too_low_is_told_which_it_takes(viewer: APIClient) -> None:
    body = problem_of(viewer.post("/api/v1/models", {}, format="json"), 403)
    assert body["detail"] == "This needs the role operator (model.register); you have viewer."
    assert body["unchanged"] == UNCHANGED


def test_a_missing_row_is_named(viewer: APIClient) -> None:
    body = problem_of(viewer.get("/api/v1/nodes/4711"), 404)
    assert body["detail"] == "There is no node with the id 4711."


def test_a_write_to_a_missing_row_is_404(operator: APIClient) -> None:
    body = problem_of(operator.post("/api/v1/nodes/4711/cordon", {}, format="json"), 404)
    assert "4711" in body["detail"]


@pytest.mark.parametrize(
    "address", ["/api/v1/", "/api/v1/nope", "/api/v1/nodes/", "/api/v1/nodes/x", "/api/v1/nodes/-1"]
)
def test_an_address_that_is_no_route_is_a_problem_too(address: str, viewer: APIClient) -> None:
    assert problem_of(viewer.get(address), 404)["problems"][0]["code"] == "no_route"


def test_a_method_that_is_not_there_is_405_with_the_allowed_ones(operator: APIClient) -> None:
    response = operator.put("/api/v1/demand", {}, format="json")
    assert response.status_code in {403, 405}  # a write that names no action is refused first
    response = operator.put("/api/v1/me", {}, format="json")
    problem_of(response, 405)
    assert "GET" in response["Allow"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 200_000, b'{"name": NaN}'])
def test_a_body_that_is_no_json_is_400(body: bytes, operator: APIClient) -> None:
    problem_of(operator.generic("POST", "/api/v1/deployments", body, content_type="application/json"), 400)


@pytest.mark.parametrize("body", ["[]", "3", '"text"', "null", "[1, 2]"])
def test_a_body_that_is_no_object_is_400(body: str, operator: APIClient) -> None:
    problem_of(operator.generic("POST", "/api/v1/deployments", body, content_type="application/json"), 400)


@pytest.mark.parametrize("size", [MAX_BODY_BYTES, 3 * MAX_BODY_BYTES])
def test_a_body_that_is_too_large_is_413(size: int, operator: APIClient) -> None:
    body = json.dumps({"name": "x" * size})
    problem_of(operator.generic("POST", "/api/v1/deployments", body, content_type="application/json"), 413)


def test_another_media_type_is_415(operator: APIClient) -> None:
    problem_of(operator.generic("POST", "/api/v1/deployments", b"a=1", content_type="text/plain"), 415)


def test_a_client_that_takes_no_json_still_gets_the_problem(viewer: APIClient) -> None:
    problem_of(viewer.get("/api/v1/nodes", HTTP_ACCEPT="image/png"), 406)


def test_unknown_fields_are_refused_by_name(operator: APIClient, world: World) -> None:
    body = {"name": "other", "model": world.model.pk, "engine_argz": [], "id": 7}
    entries = problem_of(operator.post("/api/v1/deployments", body, format="json"), 400)["problems"]
    assert {(entry["code"], entry["field"]) for entry in entries} == {
        ("unknown_field", "engine_argz"),
        ("unknown_field", "id"),
    }
    assert "engine_args" in entries[0]["message"], "the fields that exist are named"


def test_unknown_parameters_are_refused_by_name(viewer: APIClient) -> None:
    [entry] = problem_of(viewer.get("/api/v1/nodes?statuss=ready"), 400)["problems"]
    assert (entry["code"], entry["field"]) == ("unknown_parameter", "statuss")


def test_a_dry_run_where_there_is_none_does_not_act(operator: APIClient, world: World) -> None:
    problem_of(operator.post(f"/api/v1/nodes/{world.node.pk}/cordon?dry_run=true", {}, format="json"), 400)
    world.node.refresh_from_db()
    assert world.node.schedulable


def test_a_nested_field_is_named_by_its_path(operator: APIClient, world: World) -> None:
    response = operator.post(f"/api/v1/nodes/{world.node.pk}/split", {"groups": [[0], ["one"]]}, format="json")
    assert "groups[1][0]" in {entry["field"] for entry in problem_of(response, 400)["problems"]}


def test_a_refusal_of_the_fleet_keeps_its_problems(operator: APIClient, world: World) -> None:
    body = problem_of(operator.delete(f"/api/v1/deployments/{world.deployment.pk}"), 409)
    assert body["type"] == "urn:forebay:problem:refused"
    assert body["problems"][0]["code"] == "deployment-in-use"
    assert "alpha/p0" in body["problems"][0]["message"]
    assert body["unchanged"] == UNCHANGED


def test_a_session_without_the_csrf_token_cannot_write(world: World) -> None:
    user = make_user("operator")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    response = client.post(f"/api/v1/nodes/{world.node.pk}/cordon", "{}", content_type="application/json")
    assert "CSRF" in problem_of(response, 403)["detail"]
    world.node.refresh_from_db()
    assert world.node.schedulable


def test_a_session_with_the_csrf_token_writes(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("operator"))
    client.get("/accounts/login/")
    client.cookies["csrftoken"] = token = "a" * 32
    response = client.post(
        f"/api/v1/nodes/{world.node.pk}/cordon", "{}", content_type="application/json", headers={"X-CSRFToken": token}
    )
    assert response.status_code == 200, response.content


def test_a_busy_database_is_503_with_retry_after(viewer: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from controlplane.api.nodes import Nodes

    def busy(*args: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(Nodes, "list", busy)
    response = viewer.get("/api/v1/nodes")
    problem_of(response, 503)
    assert response["Retry-After"] == "2"


def test_an_unexpected_error_tells_its_request_id_and_no_more(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from controlplane.api.nodes import Nodes

    def broken(*args: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(Nodes, "list", broken)
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(make_user("viewer"))
    response = client.get("/api/v1/nodes", HTTP_X_REQUEST_ID="look-for-me")
    body = problem_of(response, 500)
    assert body["request_id"] == "look-for-me"
    assert "hunter2" not in response.content.decode()


def test_a_disabled_account_is_out_at_once(world: World) -> None:
    user = make_user("admin", password=PASSWORD)
    client = APIClient()
    client.force_login(user)
    assert client.get("/api/v1/nodes").status_code == 200
    user.is_active = False
    user.save()
    problem_of(client.get("/api/v1/nodes"), 401)
