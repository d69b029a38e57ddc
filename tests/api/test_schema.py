"""The OpenAPI document is complete, true to the routes, and loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from io import StringIO

import pytest
import yaml
from django.core.management import call_command
from rest_framework.test import APIClient

from tests.api.conftest import World
from tests.api.test_permissions import LEAST

VERBS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict:
    """As the command writes it, which fails on any warning."""
    out = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return yaml.safe_load(out.getvalue())


def operations(document: dict) -> list[tuple[str, str, dict]]:
    return [
        (verb.upper(), path, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
        if verb in VERBS
    ]


def test_every_route_is_described(document: dict) -> None:
    described = {
        (verb, path.removeprefix("/api/v1/").replace("{id}", "{pk}")) for verb, path, _ in operations(document)
    }
    assert {route for route in described if not route[1].startswith("/agent")} == {
        route for route in LEAST if route[1] not in {"schema", "docs"}
    }


def test_every_operation_has_an_id_a_summary_and_a_description(document: dict) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for verb, path, operation in operations(document):
        assert operation.get("summary"), f"{verb} {path}"
        assert operation.get("description"), f"{verb} {path}"
        assert operation.get("tags"), f"{verb} {path}"


def test_every_tag_is_explained(document: dict) -> None:
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"] if tag["description"]}


def test_every_operation_names_its_refusals(document: dict) -> None:
    for verb, path, operation in operations(document):
        refusals = {status for status in operation["responses"] if int(status) >= 400}
        if path.endswith("/health"):
            continue
        assert {"401", "403"} <= refusals, f"{verb} {path}"
        assert "404" in refusals or "{" not in path, f"{verb} {path}"
        assert "409" in refusals or verb == "GET", f"{verb} {path}"
        for status in refusals:
            content = operation["responses"][status]["content"]
            assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_writes_have_examples(document: dict) -> None:
    without = [
        f"{verb} {path}"
        for verb, path, operation in operations(document)
        if "requestBody" in operation
        and not operation["requestBody"]["content"]["application/json"].get("examples")
        and len(_fields(document, operation)) > 1
    ]
    assert without == []


def _fields(document: dict, operation: dict) -> dict:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]].get("properties", {})


def test_examples_are_lawful(document: dict, world: World, admin: APIClient) -> None:
    """An example that the API itself refuses for its shape would mislead."""
    for verb, path, operation in operations(document):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in body.get("examples", {}).values():
            lawful = set(_fields(document, operation))
            assert set(example["value"]) <= lawful, f"{verb} {path}"


def test_an_answer_is_as_described(document: dict, world: World, admin: APIClient) -> None:
    import jsonschema

    described = {
        path: operation for verb, path, operation in operations(document) if verb == "GET" and "samples" not in path
    }
    pks = {
        "nodes": world.node.pk, "gpus": world.free_gpu.pk, "models": world.model.pk, "events": world.event.pk,
        "deployments": world.deployment.pk, "partitions": world.partition.pk, "replicas": world.partition.pk,
        "requests": world.request.pk, "changes": world.change.pk, "keys": world.key.pk, "teams": world.team.pk,
        "join-tokens": world.join_token.pk, "service-accounts": world.service.pk,
        "scaling": world.plan.pk,
    }  # fmt: skip
    looked_at = 0
    for path, operation in described.items():
        resource = path.removeprefix("/api/v1/").split("/")[0]
        response = admin.get(path.replace("{id}", str(pks.get(resource, 0))))
        if response.status_code != 200 or response.streaming:
            continue
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        whole = _strict({**schema, "components": document["components"]})
        jsonschema.validate(json.loads(response.content), whole)
        looked_at += 1
    assert looked_at >= 20


def _strict(schema: object) -> object:
    """OpenAPI 3.0 as JSON Schema: nullable becomes a type, and an object has no fields that are not described."""
    if isinstance(schema, list):
        return [_strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items() if key != "nullable"}
    if "properties" in schema and isinstance(schema["properties"], dict) and schema.get("type") == "object":
        made["additionalProperties"] = False
    if schema.get("nullable") is True:
        return {"anyOf": [made, {"type": "null"}]}
    return made


def test_the_schema_is_served_to_those_who_are_logged_in(viewer: APIClient, document: dict) -> None:
    response = viewer.get("/api/v1/schema", HTTP_ACCEPT="application/json")
    assert response.status_code == 200
    assert json.loads(response.content)["paths"].keys() == document["paths"].keys()


def test_the_docs_page_sends_strangers_to_the_login(db: None) -> None:
    response = APIClient().get("/api/v1/docs")
    assert (response.status_code, response["Location"]) == (302, "/accounts/login/?next=/api/v1/docs")


def test_the_docs_page_has_no_inline_script_and_nothing_from_elsewhere(viewer: APIClient) -> None:
    page = viewer.get("/api/v1/docs").content.decode()
    scripts = re.findall(r"<script[^>]*>[^<]*</script>", page)
    assert len(scripts) == page.count("<script")
    assert all(re.fullmatch(r'<script src="/[^"]*"></script>', script) for script in scripts)
    assert "://" not in page.replace('xmlns="http://www.w3.org/', "")
    script = viewer.get("/api/v1/docs?script=")
    assert script["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle(" in script.content.decode()
