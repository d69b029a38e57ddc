"""Whatever is sent, the API answers, or refuses with a problem document: it never fails."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from controlplane.api.urls import router
from tests.api.conftest import World, problem_of

ODD = [None, True, 0, -1, 2**31, 2**63, 10**30, 1.5, "", " ", "\x00", "../..", "x" * 300, "7", [], {}, [[]], [None]]
ANY = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=20),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.one_of(st.integers(), st.text(max_size=8), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers()), max_size=3),
)
WRITES = {
    "nodes/{node}/split": ["preset", "groups"],
    "nodes/{node}/plan": ["plan", "deployment", "reason", "force"],
    "nodes/{node}/cordon": ["reason"],
    "models": ["name", "source", "revision"],
    "models?dry_run=true": ["name", "source", "revision"],
    "deployments": ["name", "model", "aliases", "mode", "engine_args", "kv_connector", "drain_s", "slo_ttft_ms",
                    "min_prefill", "max_prefill"],
    "partitions": ["node", "name", "gpu_indices"],
    "partitions/{partition}/assign": ["deployment", "role", "reason", "force", "expected_generation"],
    "partitions/{partition}/assign?dry_run=true": ["deployment", "role"],
    "changes?dry_run=true": ["moves", "shifts", "version", "reason", "force"],
    "changes": ["moves", "shifts", "version", "reason", "force"],
    "changes/{change}/undo": ["version", "reason", "force"],
    "changes/{change}/rollback": ["reason"],
    "partitions/{partition}/release": ["reason", "expected_generation"],
    "alerts/{alert}/acknowledge": ["note"],
    "silences": ["rule", "subject", "labels", "until", "reason"],
    "alert-targets": ["name", "kind", "address", "secret", "min_severity", "enabled"],
    "keys": ["name", "deployments", "requests_per_minute", "expires_at", "team"],
    "prices": ["nodes", "per_gpu_hour", "since", "reason"],
    "teams": ["name", "budget_soft", "budget_hard", "pool_floor", "deployments"],
    "join-tokens": ["node_name", "ttl_s"],
    "profile-runs": ["deployment", "partition", "force", "reason"],
    "profiles": ["table", "name", "models", "gpus", "reason"],
}  # fmt: skip
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lawful(world: World) -> dict[str, Any]:
    """A value for each field that would do, so that one odd field at a time reaches the rules behind the others."""
    return {
        "node": world.node.pk, "model": world.model.pk, "deployment": world.deployment.pk, "role": "aggregated",
        "name": "fresh", "source": "openai/gpt-oss-120b", "gpu_indices": [2], "nodes": ["alpha"], "groups": [[0]],
        "plan": "gpt-oss-120b-tp4", "version": 0,
        "moves": [{"partition": world.idle.pk, "deployment": world.deployment.pk, "role": "decode"}],
    }  # fmt: skip


@pytest.mark.parametrize("route", WRITES)
def test_odd_bodies(route: str, world: World, admin: APIClient) -> None:
    address = "/api/v1/" + route.format(
        node=world.node.pk, partition=world.idle.pk, change=world.change.pk, alert=world.alert.pk
    )
    base = {name: value for name, value in lawful(world).items() if name in WRITES[route]}

    @quick
    @given(changes=st.dictionaries(st.sampled_from(WRITES[route]), ANY, max_size=3))
    def check(changes: dict[str, Any]) -> None:
        with transaction.atomic():
            response = admin.post(address, {**base, **changes}, format="json")
            transaction.set_rollback(True)
        if response.status_code >= 300:
            problem_of(response, response.status_code)
            assert response.status_code < 500

    check()


@pytest.mark.parametrize("prefix", [prefix for prefix, _, _ in router.registry])
def test_odd_questions(prefix: str, world: World, admin: APIClient) -> None:
    view = next(view for name, view, _ in router.registry if name == prefix)
    names = [*view.filterset_class.base_filters, "ordering", "page", "page_size", "cursor"]

    @quick
    @given(query=st.dictionaries(st.sampled_from(names), ANY.map(str), max_size=3))
    def check(query: dict[str, str]) -> None:
        response = admin.get(f"/api/v1/{prefix}?{urlencode(query, errors='replace')}")
        assert response.status_code < 500, response.content
        if response.status_code != 200:
            problem_of(response, response.status_code)

    check()
