"""Every route against every role. A route that is missing here fails the first test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from controlplane.api import permissions
from controlplane.audit import roles
from tests.api.conftest import World

# method, route -> the least that may call it
LEAST = {
    ("GET", "nodes"): "viewer",
    ("GET", "nodes/{pk}"): "viewer",
    ("GET", "nodes/{pk}/weights"): "viewer",
    ("POST", "nodes/{pk}/weights"): "operator",
    ("PATCH", "nodes/{pk}"): "operator",
    ("DELETE", "nodes/{pk}"): "admin",
    ("POST", "nodes/{pk}/cordon"): "operator",
    ("POST", "nodes/{pk}/uncordon"): "operator",
    ("POST", "nodes/{pk}/drain"): "operator",
    ("POST", "nodes/{pk}/cancel_drain"): "operator",
    ("POST", "nodes/{pk}/revoke"): "admin",
    ("PUT", "nodes/{pk}/owners"): "admin",
    ("POST", "nodes/{pk}/split"): "operator",
    ("POST", "nodes/{pk}/plan"): "operator",
    ("POST", "nodes/{pk}/qualify"): "operator",
    ("GET", "gpus"): "viewer",
    ("GET", "gpus/{pk}"): "viewer",
    ("DELETE", "gpus/{pk}"): "operator",
    ("GET", "gpus/{pk}/qualifications"): "viewer",
    ("POST", "gpus/{pk}/qualify"): "operator",
    ("POST", "gpus/{pk}/cancel_qualification"): "operator",
    ("POST", "gpus/{pk}/accept"): "operator",
    ("POST", "gpus/{pk}/unaccept"): "operator",
    ("GET", "models"): "viewer",
    ("POST", "models"): "operator",
    ("GET", "models/{pk}"): "viewer",
    ("DELETE", "models/{pk}"): "operator",
    ("GET", "models/{pk}/fit"): "viewer",
    ("GET", "models/{pk}/weights"): "viewer",
    ("GET", "deployments"): "viewer",
    ("POST", "deployments"): "operator",
    ("GET", "deployments/{pk}"): "viewer",
    ("PATCH", "deployments/{pk}"): "operator",
    ("PUT", "deployments/{pk}/owners"): "admin",
    ("DELETE", "deployments/{pk}"): "operator",
    ("GET", "partitions"): "viewer",
    ("POST", "partitions"): "operator",
    ("GET", "partitions/{pk}"): "viewer",
    ("PATCH", "partitions/{pk}"): "operator",
    ("DELETE", "partitions/{pk}"): "operator",
    ("POST", "partitions/{pk}/assign"): "operator",
    ("POST", "partitions/{pk}/release"): "operator",
    ("GET", "partitions/{pk}/logs"): "viewer",
    ("GET", "nodes/{pk}/logs"): "operator",
    ("GET", "processes"): "operator",
    ("GET", "processes/{name}/logs"): "operator",
    ("GET", "changes"): "viewer",
    ("POST", "changes"): "operator",
    ("GET", "changes/{pk}"): "viewer",
    ("POST", "changes/{pk}/undo"): "operator",
    ("POST", "changes/{pk}/resume"): "operator",
    ("POST", "changes/{pk}/rollback"): "operator",
    ("GET", "replicas"): "viewer",
    ("GET", "replicas/{pk}"): "viewer",
    ("GET", "live"): "viewer",
    ("GET", "pool"): "viewer",
    ("GET", "activations"): "viewer",
    ("GET", "activations/{pk}"): "viewer",
    ("GET", "capacity"): "viewer",
    ("GET", "capacity/sizing"): "viewer",
    ("GET", "profiles"): "viewer",
    ("POST", "profiles"): "operator",
    ("GET", "profiles/{pk}"): "viewer",
    ("DELETE", "profiles/{pk}"): "operator",
    ("POST", "profiles/{pk}/apply"): "operator",
    ("GET", "capacity/activity"): "viewer",
    ("POST", "capacity/activity"): "operator",
    ("GET", "capacity/spent"): "viewer",
    ("GET", "capacity/comparisons"): "viewer",
    ("POST", "capacity/comparisons"): "operator",
    ("GET", "capacity/comparisons/{pk}"): "viewer",
    ("GET", "capacity/policy"): "viewer",
    ("PATCH", "capacity/policy"): "operator",
    ("GET", "profile-runs"): "viewer",
    ("POST", "profile-runs"): "operator",
    ("GET", "profile-runs/{pk}"): "viewer",
    ("POST", "profile-runs/{pk}/cancel"): "operator",
    ("GET", "brake"): "viewer",
    ("POST", "brake/release"): "operator",
    ("POST", "brake/restore"): "operator",
    ("GET", "samples"): "viewer",
    ("GET", "requests"): "viewer",
    ("GET", "requests/{pk}"): "viewer",
    ("GET", "demand"): "viewer",
    ("GET", "events"): "viewer",
    ("GET", "events/{pk}"): "viewer",
    ("GET", "events/export"): "viewer",
    ("GET", "alerts"): "viewer",
    ("GET", "alerts/{pk}"): "viewer",
    ("POST", "alerts/{pk}/acknowledge"): "operator",
    ("GET", "silences"): "viewer",
    ("POST", "silences"): "operator",
    ("GET", "silences/{pk}"): "viewer",
    ("DELETE", "silences/{pk}"): "operator",
    ("GET", "alert-rules"): "viewer",
    ("GET", "alert-rules/{pk}"): "viewer",
    ("PATCH", "alert-rules/{pk}"): "admin",
    ("GET", "alert-targets"): "admin",
    ("POST", "alert-targets"): "admin",
    ("GET", "alert-targets/{pk}"): "admin",
    ("PATCH", "alert-targets/{pk}"): "admin",
    ("DELETE", "alert-targets/{pk}"): "admin",
    ("POST", "alert-targets/{pk}/test"): "admin",
    ("GET", "keys"): "admin",
    ("POST", "keys"): "admin",
    ("GET", "keys/{pk}"): "admin",
    ("POST", "keys/{pk}/revoke"): "admin",
    ("PUT", "keys/{pk}/team"): "admin",
    ("GET", "teams"): "viewer",
    ("POST", "teams"): "admin",
    ("GET", "teams/{pk}"): "viewer",
    ("PATCH", "teams/{pk}"): "admin",
    ("DELETE", "teams/{pk}"): "admin",
    ("GET", "prices"): "viewer",
    ("POST", "prices"): "admin",
    ("GET", "usage"): "viewer",
    ("GET", "usage/export"): "viewer",
    ("GET", "scaling"): "viewer",
    ("GET", "scaling/plans"): "viewer",
    ("GET", "scaling/plans/{pk}"): "viewer",
    ("POST", "scaling/plans/{pk}/apply"): "operator",
    ("POST", "scaling/plans/{pk}/dismiss"): "operator",
    ("GET", "scaling/policy"): "viewer",
    ("PATCH", "scaling/policy"): "operator",
    ("GET", "join-tokens"): "admin",
    ("POST", "join-tokens"): "admin",
    ("GET", "join-tokens/{pk}"): "admin",
    ("DELETE", "join-tokens/{pk}"): "admin",
    ("GET", "service-accounts"): "admin",
    ("POST", "service-accounts"): "admin",
    ("GET", "service-accounts/{pk}"): "admin",
    ("PATCH", "service-accounts/{pk}"): "admin",
    ("GET", "service-accounts/{pk}/tokens"): "admin",
    ("POST", "service-accounts/{pk}/tokens"): "admin",
    ("DELETE", "service-accounts/{pk}/tokens/{token_id}"): "admin",
    ("GET", "tokens"): "viewer",
    ("POST", "tokens"): "viewer",
    ("DELETE", "tokens"): "viewer",
    ("DELETE", "tokens/{token_id}"): "viewer",
    ("GET", "me"): "nobody",
    ("GET", "version"): "viewer",
    ("GET", "schema"): "viewer",
    ("GET", "docs"): "viewer",
    ("GET", "health"): "anonymous",
}
CALLERS = ("anonymous", "nobody", "viewer", "operator", "admin")


def routes() -> Iterator[tuple[str, str, object]]:
    """(method, route, view class) of everything under /api/v1/."""
    return ((method, route, view) for method, route, view, _ in handlers())


def handlers() -> Iterator[tuple[str, str, object, str]]:
    """The same with the name of the action, or the method again where a view has no actions."""
    api = next(entry for entry in get_resolver().url_patterns if str(entry.pattern) == "api/v1/")
    for prefix, pattern in flat(api):
        view = getattr(pattern.callback, "cls", None)
        if view is None:
            continue  # the answer to addresses that are no route
        methods = getattr(pattern.callback, "actions", None) or {
            name: name.upper() for name in view.http_method_names if hasattr(view, name)
        }
        for method, action in methods.items():
            if method not in {"head", "options"}:
                yield method.upper(), readable(prefix), view, action


def flat(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for entry in resolver.url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from flat(entry, route)
        else:
            yield route, entry


def readable(route: str) -> str:
    """^nodes/(?P<pk>[0-9]{1,18})/cordon$ and partitions/<int:pk>/logs as the table has them."""
    parts = []
    for part in route.strip("^$").replace("\\Z", "").split("/"):
        name = part.removeprefix("(?P<").split(">")[0] if part.startswith("(?P<") else part
        name = part.strip("<>").split(":")[-1] if part.startswith("<") else name
        parts.append(f"{{{name}}}" if name != part else part)
    return "/".join(parts)


def test_the_table_has_every_route_and_no_other() -> None:
    assert {(method, route) for method, route, _ in routes()} == set(LEAST)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "route"), LEAST)
def test_a_route_opens_to_its_least_role_and_above(
    method: str, route: str, caller: str, world: World, as_role: Callable[[str], APIClient]
) -> None:
    response = as_role(caller).generic(method, address_of(route, world), b"{}", content_type="application/json")
    if CALLERS.index(caller) >= CALLERS.index(LEAST[method, route]):
        assert response.status_code not in {401, 403}, response.content
        assert response.status_code < 500 or (route in {"health", "processes"} or route.endswith("logs")), (
            response.content
        )
    elif caller == "anonymous":
        assert response.status_code == (302 if route == "docs" else 401)
    else:
        assert response.status_code == 403
        assert "This needs the role" in response.json()["detail"] or route == "docs"


def address_of(route: str, world: World) -> str:
    """The route with the number of the one that the world has of it."""
    pks = {
        "nodes": world.node.pk,
        "gpus": world.free_gpu.pk,
        "models": world.model.pk,
        "deployments": world.deployment.pk,
        "partitions": world.partition.pk,
        "replicas": world.partition.pk,
        "changes": world.change.pk,
        "requests": world.request.pk,
        "events": world.event.pk,
        "keys": world.key.pk,
        "teams": world.team.pk,
        "alerts": world.alert.pk,
        "silences": world.silence.pk,
        "alert-rules": world.rule.pk,
        "alert-targets": world.target.pk,
        "service-accounts": world.service.pk,
        "join-tokens": world.join_token.pk,
        "scaling": world.plan.pk,
    }
    return "/api/v1/" + route.replace("{pk}", str(pks.get(route.split("/")[0], 0))).replace("{token_id}", "none")


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", ["changes", "changes/{pk}/undo", "nodes/{pk}/drain"])
def test_to_look_at_a_change_that_is_not_made_a_viewer_is_enough(
    route: str, caller: str, world: World, as_role: Callable[[str], APIClient]
) -> None:
    pk = world.node.pk if route.startswith("nodes") else world.change.pk
    address = "/api/v1/" + route.replace("{pk}", str(pk))
    for word, least in (("true", "viewer"), ("1", "viewer"), ("false", "operator"), ("yes", "operator")):
        response = as_role(caller).post(f"{address}?dry_run={word}", {}, format="json")
        may = CALLERS.index(caller) >= CALLERS.index(least)
        assert (response.status_code not in {401, 403}) is may, (word, response.content)


def test_every_write_names_an_action_of_the_role_table() -> None:
    for method, route, view in routes():
        if method == "GET":
            continue
        names = {*getattr(view, "role_actions", {}).values(), getattr(view, "role_action", None)} - {None}
        assert names, f"{method} {route} names no action"
        assert names <= set(roles.ACTIONS), f"{method} {route}"


def test_a_write_that_names_no_action_is_refused_even_to_an_admin(admin: APIClient, monkeypatch) -> None:
    from controlplane.api.deployments import Deployments

    monkeypatch.setattr(Deployments, "role_actions", {})
    response = admin.post("/api/v1/deployments", {}, format="json")
    assert response.status_code == 403
    assert permissions.action_named_by(Deployments(), "POST") is None
