"""Engine arguments that run code or open files of nodes are an admin's to set."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.audit.models import AuditEvent
from controlplane.audit.roles import Level, limit
from controlplane.audit.services import Actor
from controlplane.fleet import services
from controlplane.fleet.models import Deployment
from controlplane.fleet.trust import COLUMNS, NotTrusted
from tests.factories import make_deployment, make_model, make_user

pytestmark = pytest.mark.django_db

ARGS = ["--trust-remote-code", "--chat-template", "/a.jinja"]


def by(role: str) -> Actor:
    user = make_user(role)
    return Actor(name=user.username, source="api", user=user)


def flags(error: pytest.ExceptionInfo) -> list[str]:
    assert {problem.code for problem in error.value.problems} == {"engine-arg-admin"}
    return [word for p in error.value.problems for word in p.fix.split() if word.startswith("--")]


@pytest.mark.parametrize("column", COLUMNS)
def test_an_operator_cannot_give_them_and_an_admin_can(column: str) -> None:
    deployment, model = make_deployment("chat"), make_model()
    for change in (
        lambda actor: services.create_deployment(name="new", model_id=model.pk, **{column: ARGS}, actor=actor),
        lambda actor: services.update_deployment(deployment.pk, **{column: ARGS}, actor=actor),
    ):
        events = AuditEvent.objects.count()
        with pytest.raises(NotTrusted, match="Only admins may set or change --trust-remote-code") as error:
            change(by("operator"))
        assert flags(error) == ["--trust-remote-code", "--chat-template"]
        assert AuditEvent.objects.count() == events
        assert getattr(Deployment.objects.get(name="chat"), column) == []
        made = change(by("admin"))
        assert getattr(made, column) == ARGS


def test_a_token_of_a_lower_scope_is_no_admin() -> None:
    actor = by("admin")
    limit(actor.user, Level.OPERATOR)

    with pytest.raises(NotTrusted):
        services.update_deployment(make_deployment().pk, engine_args=ARGS, actor=actor)


def test_an_operator_keeps_them_or_takes_them_away() -> None:
    deployment, operator = make_deployment(engine_args=ARGS), by("operator")

    services.update_deployment(deployment.pk, drain_s=7, engine_args=ARGS, actor=operator)
    services.update_deployment(deployment.pk, engine_args=["--seed=1", *ARGS], actor=operator)
    deployment.refresh_from_db()
    assert (deployment.drain_s, deployment.engine_args) == (7, ["--seed=1", *ARGS])

    services.update_deployment(deployment.pk, engine_args=["--seed=1"], actor=operator)
    with pytest.raises(NotTrusted):
        services.update_deployment(deployment.pk, engine_args=ARGS, actor=operator)


@pytest.mark.parametrize(
    "change",
    [
        {"engine_args": ["--trust-remote-code", "--chat-template", "/b.jinja"]},
        {"engine_args": ["--trust-remote-code", "--chat-templ=/b.jinja"]},
        {"engine_args": ["--trust-remote-code"], "decode_args": ["--chat-template", "/a.jinja"]},
    ],
)
def test_an_operator_changes_no_value_and_moves_none_to_other_engines(change: dict[str, Any]) -> None:
    deployment = make_deployment(engine_args=ARGS)

    with pytest.raises(NotTrusted) as error:
        services.update_deployment(deployment.pk, **change, actor=by("operator"))

    assert flags(error) == ["--chat-template"]


def test_an_operator_brings_no_other_model_under_them() -> None:
    """Its repository's code would run."""
    deployment, other = make_deployment(engine_args=ARGS), make_model()

    with pytest.raises(NotTrusted, match="change the model of a deployment with --trust-remote-code"):
        services.update_deployment(deployment.pk, model_id=other.pk, actor=by("operator"))

    services.update_deployment(deployment.pk, model_id=other.pk, engine_args=[], actor=by("operator"))
    deployment.refresh_from_db()
    assert (deployment.model, deployment.engine_args) == (other, [])
