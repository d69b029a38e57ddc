"""The audit trail: who, what, from where; and who may do what."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from controlplane.audit import roles
from controlplane.audit.middleware import RequestIdMiddleware
from controlplane.audit.models import AuditEvent
from controlplane.audit.requests import actor_of
from controlplane.audit.roles import Level
from controlplane.audit.services import Actor, record
from tests.factories import make_node, make_user

pytestmark = pytest.mark.django_db


def request_by(user: User | AnonymousUser, **headers: str) -> HttpRequest:
    request = RequestFactory().post("/", headers=headers, REMOTE_ADDR="10.0.0.9")
    request.user = user
    RequestIdMiddleware(lambda _: HttpResponse())(request)
    return request


class TestRecord:
    def test_an_event_says_who_what_and_from_where(self) -> None:
        user = make_user("operator", username="olga")
        request = request_by(user, **{"X-Request-ID": "abc-12345678"})
        node = make_node("host-1")

        record(actor_of(request, "rest"), "cordon", node, before={"a": 1}, after={"a": 2}, reason="fan", detail="loud")

        event = AuditEvent.objects.get()
        assert (event.actor, event.actor_name, event.source, event.address) == (user, "olga", "rest", "10.0.0.9")
        assert (event.verb, event.subject_type, event.subject_id, event.subject_name) == (
            "cordon", "node", node.pk, "host-1",
        )  # fmt: skip
        assert (event.before, event.after, event.reason, event.detail) == ({"a": 1}, {"a": 2}, "fan", "loud")
        assert event.request_id == "abc-12345678"

    def test_it_is_undone_with_the_change_it_records(self) -> None:
        with pytest.raises(RuntimeError), transaction.atomic():
            record(Actor.system("test"), "change", make_node())
            raise RuntimeError

        assert not AuditEvent.objects.exists()

    def test_it_outlives_its_actor_by_name(self) -> None:
        user = make_user("operator", username="olga")
        record(actor_of(request_by(user), "web"), "change", make_node())

        number = user.pk
        user.delete()

        event = AuditEvent.objects.get()
        assert (event.actor_id, event.actor_name) == (number, "olga"), "the row is as it was written"

    def test_the_newest_comes_first(self) -> None:
        node = make_node()
        for verb in ("first", "second"):
            record(Actor.agent(node.name), verb, node)

        assert [event.verb for event in AuditEvent.objects.all()] == ["second", "first"]


class TestRequestId:
    def test_each_request_gets_one_and_is_told(self) -> None:
        response = RequestIdMiddleware(lambda _: HttpResponse())(RequestFactory().get("/"))

        assert len(response["X-Request-ID"]) == 16

    @pytest.mark.parametrize("given", ["short", "x" * 65, "with space in it", "new\nline-in-it", "<b>bold</b>"])
    def test_a_given_one_that_would_soil_the_log_is_not_taken(self, given: str) -> None:
        request = RequestFactory().get("/")
        request.META["HTTP_X_REQUEST_ID"] = given

        response = RequestIdMiddleware(lambda _: HttpResponse())(request)

        assert response["X-Request-ID"] != given

    async def test_it_works_in_front_of_asynchronous_views(self) -> None:
        async def view(_: HttpRequest) -> HttpResponse:
            return HttpResponse()

        response = await RequestIdMiddleware(view)(RequestFactory().get("/", headers={"X-Request-ID": "by-a-proxy"}))

        assert response["X-Request-ID"] == "by-a-proxy"


class TestRoles:
    @pytest.mark.parametrize(
        ("role", "level"),
        [("", Level.NONE), ("viewer", Level.VIEWER), ("operator", Level.OPERATOR), ("admin", Level.ADMIN)],
    )
    def test_a_role_is_a_group(self, role: str, level: Level) -> None:
        assert roles.level_of(make_user(role)) == level

    def test_nobody_is_nobody(self) -> None:
        assert roles.level_of(AnonymousUser()) == Level.NONE

    def test_a_disabled_admin_may_do_nothing(self) -> None:
        user = make_user("admin")
        user.is_active = False

        assert roles.level_of(user) == Level.NONE

    @pytest.mark.parametrize("action", sorted(roles.ACTIONS))
    def test_each_action_is_open_from_its_level_on_and_to_no_lower(self, action: str) -> None:
        needed = roles.ACTIONS[action]

        allowed = {role for role in ("", *roles.ROLES) if roles.allows(make_user(role), action)}

        assert allowed == {role for role, level in roles.ROLES.items() if level >= needed}

    def test_what_handles_secrets_and_hosts_is_for_admins(self) -> None:
        for action in ("node.join", "node.revoke", "node.remove", "key.manage", "spec.secrets"):
            assert roles.ACTIONS[action] == Level.ADMIN

    def test_an_action_that_does_not_exist_is_an_error_not_a_yes(self) -> None:
        with pytest.raises(KeyError):
            roles.allows(make_user("admin"), "node.reboot")
