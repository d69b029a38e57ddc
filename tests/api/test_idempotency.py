"""A write that is sent again with its key is answered again, not done again."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate

from controlplane.api import idempotency
from controlplane.api.idempotency import Idempotent
from controlplane.api.models import KeptAnswer
from controlplane.api.permissions import LoggedIn
from controlplane.api.tasks import prune
from controlplane.audit.models import AuditEvent
from controlplane.fleet.models import Partition
from controlplane.gateway.models import ApiKey
from tests.api.conftest import World, problem_of
from tests.api.test_permissions import handlers, routes
from tests.api.test_schema import document, operations  # noqa: F401 - a fixture
from tests.factories import make_node, make_user


def send(client: APIClient, path: str, body: Any = None, key: str | None = "k-1", method: str = "post") -> HttpResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return getattr(client, method)(f"/api/v1/{path}", body or {}, format="json", headers=headers)


def new_partition(world: World, name: str = "p8") -> dict[str, Any]:
    return {"node": world.node.pk, "name": name, "gpu_indices": [world.free_gpu.index]}


def test_the_second_is_answered_as_the_first_and_does_nothing(world: World, operator: APIClient) -> None:
    first = send(operator, "partitions", new_partition(world))
    again = send(operator, "partitions", new_partition(world))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again["Content-Type"] == "application/json"
    assert again["Cache-Control"] == "no-store"
    assert (again["Idempotent-Replayed"], "Idempotent-Replayed" in first) == ("true", False)
    assert Partition.objects.filter(name="p8").count() == 1
    assert AuditEvent.objects.filter(verb="create", subject_type="partition").count() == 1


def test_without_a_key_each_is_done(world: World, operator: APIClient) -> None:
    for expected in (201, 409):
        assert send(operator, "partitions", new_partition(world), key=None).status_code == expected
    assert not KeptAnswer.objects.exists()


def test_an_answer_without_a_body_is_given_again(world: World, operator: APIClient) -> None:
    for _ in range(2):
        response = send(operator, f"partitions/{world.idle.pk}", method="delete")
        assert (response.status_code, response.content) == (204, b"")


def test_a_refusal_is_kept_too_for_it_is_an_answer(world: World, operator: APIClient) -> None:
    wrong = {**new_partition(world), "gpu_indices": [99]}
    first = problem_of(send(operator, "partitions", wrong), 409)
    response = send(operator, "partitions", wrong)
    assert problem_of(response, 409) == first
    assert response["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("path", ["partitions/{idle}/release", "partitions/{partition}/release?x=1"])
def test_the_same_key_with_another_request_is_refused(world: World, operator: APIClient, path: str) -> None:
    send(operator, f"partitions/{world.partition.pk}/release", {"reason": "night"})
    other = path.format(idle=world.idle.pk, partition=world.partition.pk)
    for target, body in ((other, {"reason": "night"}), (f"partitions/{world.partition.pk}/release", {"reason": "x"})):
        refused = problem_of(send(operator, target, body), 422)
        assert refused["type"] == "urn:forebay:problem:idempotency-key-reused"
        assert refused["unchanged"]


def test_keys_are_each_callers_own(world: World, operator: APIClient, admin: APIClient) -> None:
    send(operator, "partitions", new_partition(world))
    response = send(admin, "partitions", new_partition(world))
    assert response.status_code == 409
    assert "Idempotent-Replayed" not in response


def test_while_the_first_still_runs_the_second_is_told_to_come_again(world: World, operator: APIClient) -> None:
    send(operator, f"nodes/{world.node.pk}/cordon")
    KeptAnswer.objects.update(status=None, leased_until=timezone.now() + timedelta(seconds=30))
    response = send(operator, f"nodes/{world.node.pk}/cordon")
    body = problem_of(response, 409)
    assert body["type"] == "urn:forebay:problem:idempotency-key-running"
    assert int(response["Retry-After"]) >= 1
    assert "unchanged" not in body, "the first may have changed something"


def test_a_process_that_died_in_the_middle_does_not_block_the_key(world: World, operator: APIClient) -> None:
    send(operator, f"nodes/{world.node.pk}/cordon")
    left = KeptAnswer.objects.get()
    KeptAnswer.objects.update(status=None, body="", leased_until=timezone.now() - timedelta(seconds=1))
    response = send(operator, f"nodes/{world.node.pk}/cordon")
    assert response.status_code == 200 and "Idempotent-Replayed" not in response
    now = KeptAnswer.objects.get()
    assert (now.pk, now.status) == (left.pk, 200) and now.lease != left.lease


def test_who_lost_the_lease_does_not_write_over_the_answer_of_who_has_it(world: World, operator: APIClient) -> None:
    send(operator, f"nodes/{world.node.pk}/cordon")
    row = KeptAnswer.objects.get()
    for late in (HttpResponse("late", status=409), HttpResponse(status=503)):
        idempotency.Claim(row.pk, "a lease that was taken over").keep(late, secret=False)
    assert KeptAnswer.objects.get().body == row.body


def test_a_dry_run_leaves_the_key_aside(world: World, operator: APIClient) -> None:
    body = {"deployment": world.deployment.pk, "role": "decode"}
    path = f"partitions/{world.idle.pk}/assign"
    assert send(operator, f"{path}?dry_run=true", body).json()["action"] == "start"
    assert not KeptAnswer.objects.exists()
    assert send(operator, f"{path}?dry_run=false", body).json()["role"] == "decode"
    assert KeptAnswer.objects.count() == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tin it", "naïve"])
def test_an_unlawful_key_is_refused_by_name(world: World, operator: APIClient, key: str) -> None:
    refused = problem_of(send(operator, f"nodes/{world.node.pk}/cordon", key=key), 400)
    assert refused["problems"][0]["field"] == "Idempotency-Key"
    world.node.refresh_from_db()
    assert world.node.schedulable


def test_reading_needs_no_key_and_keeps_nothing(world: World, operator: APIClient) -> None:
    assert operator.get("/api/v1/nodes", headers={"Idempotency-Key": "k-1"}).status_code == 200
    assert not KeptAnswer.objects.exists()


def test_who_may_not_do_it_now_gets_no_kept_answer(world: World, db: None) -> None:
    user, client = make_user("operator"), APIClient()
    client.force_authenticate(user)
    send(client, f"nodes/{world.node.pk}/cordon")
    user.groups.clear()
    problem_of(send(client, f"nodes/{world.node.pk}/cordon"), 403)


def test_a_secret_that_is_shown_once_is_not_kept(world: World, admin: APIClient) -> None:
    first = send(admin, "keys", {"name": "billing two"})
    made = first.json()
    response = send(admin, "keys", {"name": "billing two"})
    refused = problem_of(response, 409)
    assert refused["type"] == "urn:forebay:problem:secret-shown-once"
    assert f"it made {made['id']}" in refused["detail"] and "unchanged" not in refused
    assert response["Idempotent-Replayed"] == "true"
    assert ApiKey.objects.filter(name="billing two").count() == 1
    kept = KeptAnswer.objects.get()
    assert made["key"] not in repr(kept.__dict__) and made["prefix"] not in repr(kept.__dict__)


def test_a_refusal_of_what_would_show_a_secret_is_kept_whole(world: World, admin: APIClient) -> None:
    first = problem_of(send(admin, "keys", {"name": ""}), 400)
    assert problem_of(send(admin, "keys", {"name": ""}), 400) == first


def test_a_login_token_is_made_once_a_key(db: None) -> None:
    client = APIClient()
    client.force_login(make_user("viewer"))
    assert send(client, "tokens").status_code == 201
    assert problem_of(send(client, "tokens"), 409)["problems"][0]["code"] == "secret_shown_once"
    assert len(client.get("/api/v1/tokens").json()) == 1


def test_every_answer_with_a_secret_is_marked_as_such(document: dict) -> None:  # noqa: F811
    """What the OpenAPI document says is shown once is what the views say is not kept."""
    shown = {
        (verb, path.removeprefix("/api/v1/").replace("{id}", "{pk}"))
        for verb, path, operation in operations(document)
        if not path.startswith("/agent") and _shows_once(document, operation)
    }
    marked = {
        (method, route)
        for method, route, view, action in handlers()
        if action in getattr(view, "shows_secret", frozenset())
    }
    assert shown == marked
    assert len(shown) >= 3


def _shows_once(document: dict, operation: dict) -> bool:  # noqa: F811
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    for answer in answers:
        name = answer.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "").split("/")[-1]
        fields = document["components"]["schemas"].get(name, {}).get("properties", {}).values()
        if any("Shown this once" in field.get("description", "") for field in fields):
            return True
    return False


def test_every_view_that_takes_writes_heeds_keys_and_says_so(document: dict) -> None:  # noqa: F811
    writing = {view for method, _, view in routes() if method != "GET"}
    assert [view for view in writing if not issubclass(view, Idempotent)] == []
    for verb, path, operation in operations(document):
        named = any(row["name"] == "Idempotency-Key" for row in operation.get("parameters", []))
        assert named is (verb != "GET"), f"{verb} {path}"


class Failing(Idempotent):
    permission_classes = [LoggedIn]
    failures = 1

    def post(self, request: Request) -> Response:
        if Failing.failures:
            Failing.failures -= 1
            raise RuntimeError("the disk is full")
        return Response({"done": True})


def test_a_failure_of_the_server_is_no_answer_and_may_be_tried_again(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user("operator")

    def post() -> HttpResponse:
        request = APIRequestFactory().post("/failing", {}, format="json", headers={"Idempotency-Key": "k-1"})
        force_authenticate(request, user)
        response = Failing.as_view()(request)
        return response.render() if hasattr(response, "render") else response

    assert [post().status_code for _ in range(2)] == [500, 200]
    assert post()["Idempotent-Replayed"] == "true"


def test_answers_are_given_up_after_their_keep(world: World, operator: APIClient) -> None:
    send(operator, f"nodes/{world.node.pk}/cordon")
    prune()
    assert KeptAnswer.objects.count() == 1
    past = timezone.now() - timedelta(seconds=1)
    KeptAnswer.objects.update(expires_at=past, leased_until=past)
    response = send(operator, f"nodes/{world.node.pk}/uncordon")
    assert response.status_code == 200 and "Idempotent-Replayed" not in response, "an expired key is free"
    KeptAnswer.objects.update(expires_at=past)
    prune()
    assert not KeptAnswer.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", range(3))
def test_of_many_at_once_one_is_done(attempt: int) -> None:
    node, user = make_node("alpha", gpus=1), make_user("operator")
    gate, answers = threading.Barrier(6), []

    def post() -> None:
        client = APIClient()
        client.force_authenticate(user)
        gate.wait(10)
        try:
            answers.append(send(client, "partitions", {"node": node.pk, "name": "p8", "gpu_indices": [0]}))
        finally:
            connection.close()

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(answers) == 6
    done = [answer for answer in answers if answer.status_code == 201]
    assert len([answer for answer in done if "Idempotent-Replayed" not in answer]) == 1
    assert {answer.content for answer in done} == {done[0].content}
    for answer in answers:
        if answer.status_code != 201:
            assert problem_of(answer, 409)["type"] == "urn:forebay:problem:idempotency-key-running"
    assert Partition.objects.count() == 1
