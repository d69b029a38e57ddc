"""The API against its own OpenAPI document: requests made of it, lawful and not, get answers that it describes."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from typing import Any

import pytest
import schemathesis
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.api.conftest import World
from tests.api.test_permissions import address_of
from tests.cli.conftest import Application
from tests.factories import make_token, make_user

load_all_checks()
CHECKED = [
    CHECKS.get_one(name)
    for name in ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
]
# What needs a broker or an engine to answer says so with 503; nothing may fail.
MAY_BE_AWAY = 503
EXAMPLES = {GenerationMode.POSITIVE: 6, GenerationMode.NEGATIVE: 4}
MOST_ANSWERS_EACH = 3  # of those that fail, to read at once


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Each refusal would be a line in the report of a failure."""
    for name in ("django.request", "django.security.csrf", "controlplane"):
        caplog.set_level(logging.CRITICAL, logger=name)


@pytest.fixture
def schema(world: World) -> Any:
    """The document as the API serves it, over WSGI to the real URLs."""
    headers = {"Authorization": f"Token {make_token(make_user('admin'))}"}
    made = schemathesis.openapi.from_wsgi("/api/v1/schema?format=json", Application(), headers=headers)

    @made.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        """Every other number is of a row that there is: the others end at 404 before any rule is asked."""
        number = (path_parameters or {}).get("id")
        if not isinstance(number, int) or number % 2:
            return path_parameters
        route = context.operation.path.removeprefix("/api/v1/").replace("{id}", "{pk}")
        there_is = address_of(route, world).split("/")[4]
        return {**(path_parameters or {}), "id": there_is}

    return made.include(path_regex="^/api/v1/")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", EXAMPLES, ids=lambda mode: mode.value)
def test_every_answer_is_as_the_document_says(mode: GenerationMode, schema: Any) -> None:
    headers = {"Authorization": f"Token {make_token(make_user('admin'))}"}
    wrong: dict[str, list[str]] = defaultdict(list)
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES[mode],
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            nonlocal asked
            asked += 1
            with transaction.atomic():
                answer = case.call(headers=headers)
                transaction.set_rollback(True)
            if problem := _problem(case, answer):
                wrong[f"{case.method} {case.path}"].append(problem)

        with contextlib.suppress(Unsatisfiable):  # nothing about it can be wrong: no parameter, no body
            check()
    assert asked > 200
    assert not wrong, "\n".join(
        f"{label}: {text}" for label, texts in wrong.items() for text in texts[:MOST_ANSWERS_EACH]
    )


def _problem(case: Any, answer: Any) -> str:
    if answer.status_code >= 500 and answer.status_code != MAY_BE_AWAY:
        return f"{answer.status_code} to {case.as_curl_command()}: {answer.text[:300]}"
    try:
        case.validate_response(answer, checks=CHECKED)
    except schemathesis.core.failures.FailureGroup as group:
        return f"{answer.status_code} to {case.as_curl_command()}: " + "; ".join(
            f"{failure.title} {failure.message}"[:400] for failure in group.exceptions
        )
    return ""
