"""Every route, asked as each role for what nobody should ask for: it answers, or refuses with a problem document that
says that nothing was changed. It never fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
from django.core.cache import cache as throttles
from django.db import transaction
from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from controlplane.api.documents import UNCHANGED
from tests.api.conftest import ROLES, World, problem_of
from tests.api.test_permissions import LEAST, address_of

JSON = "application/json"
DEEP = '{"a":' * 90_000 + "1" + "}" * 90_000
NESTED: Any = "x"
for _ in range(200):
    NESTED = [NESTED]
BODIES = [
    b"", b"null", b"[]", b"3", b'"text"', b"{", b"\xff\xfe{}", b"{}\x00", DEEP.encode(), b"[" * 200_000,
    b'{"reason": NaN}', b'{"reason": -Infinity}', b'{"reason": 1e999}', b'{"reason": "\\u0000"}',
    b'{"reason": "\\ud800"}', b'{"\\u0000": 1}', b'{"\\ud800": 1}', b'{"reason": ' + b"9" * 5000 + b"}",
]  # fmt: skip
TYPES = [
    "text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=\x00", "application/json; charset=utf-16", "application/json; charset=nonsense", "x",
]  # fmt: skip
ODD = [
    None, True, -1, 2**63, -1e308, "\x00", "\ud800", "x" * 100_000, "inf", "9999-12-31T23:59:59-14:00", [], {},
    ["\x00"], [2**63], {"\x00": "\x00"}, NESTED,
]  # fmt: skip
ASKED = [
    "", "a\x00b", "-1", "9" * 19, "9" * 5000, "nan", "1e999", "x" * 3000, ",", "0001-01-01T00:00:00+14:00", "٣",
    "__class__",
]  # fmt: skip
PAGING = ["page", "page_size", "cursor", "ordering", "limit", "offset", "format", "dry_run", "nonsense"]
PLACES = ["0", "9" * 18, "9" * 19, "9" * 400, "-1", "1.5", "\x00", "x", "..", "%", "٣"]


@cache
def document() -> dict[str, Any]:
    return SchemaGenerator().get_schema(request=None, public=True)


def described(method: str, route: str) -> dict[str, Any]:
    """What the API's own document says of a route."""
    for path, methods in document()["paths"].items():
        if path.removeprefix("/api/v1/").replace("{id}", "{pk}") == route:
            return methods.get(method.lower(), {})
    return {}


def fields(method: str, route: str) -> list[str]:
    """The names that a body may have."""
    content = described(method, route).get("requestBody", {}).get("content", {})
    shape = content.get(JSON, {}).get("schema", {})
    return [name for part in _parts(shape) for name in part.get("properties", {})]


def _parts(shape: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in shape:
        shape = document()["components"]["schemas"][shape["$ref"].rsplit("/", 1)[1]]
    yield shape
    for word in ("oneOf", "anyOf", "allOf"):
        for one in shape.get(word, ()):
            yield from _parts(one)


def parameters(method: str, route: str) -> list[str]:
    named = [one["name"] for one in described(method, route).get("parameters", ()) if one["in"] == "query"]
    return list(dict.fromkeys([*named, *PAGING]))


class Asking:
    """Asks, takes back what was changed, and keeps what was wrong with the answer."""

    def __init__(self, client: APIClient) -> None:
        self.client, self.asked, self.wrong = client, 0, []
        client.raise_request_exception = False

    def ask(self, method: str, address: str, body: bytes = b"", content_type: str = JSON) -> None:
        self.asked += 1
        throttles.clear()
        with transaction.atomic():
            answer = self.client.generic(method, address, body, content_type=content_type)
            text = _text(answer)
            transaction.set_rollback(True)
        if why := _fault(method, answer):
            self.wrong.append(f"{method} {address[:200]} {body[:200]!r} {content_type}: {why}: {text[:300]!r}")


def _text(answer: HttpResponse) -> bytes:
    """All of it: what streams may fail half way."""
    return b"".join(answer.streaming_content) if answer.streaming else answer.content  # type: ignore[arg-type]


def _fault(method: str, answer: HttpResponse) -> str:
    if answer.status_code < 400 or answer.status_code == 503:  # what needs a broker or an engine says so
        return ""
    if answer.status_code >= 500:
        return str(answer.status_code)
    try:
        body = problem_of(answer, answer.status_code)
    except (AssertionError, KeyError, ValueError) as error:
        return f"{answer.status_code} with no problem document: {error!r}"
    return "" if method == "GET" or body.get("unchanged") == UNCHANGED else "it does not say what was not changed"


SLOW = {"schema", "docs"}  # the document is made anew for each; they take no body and nothing but `format`
ROUTES = sorted({route for _, route in LEAST} - SLOW)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("route", ROUTES)
def test_a_route_answers_whatever_it_is_asked(route: str, world: World, as_role: Callable[[str], APIClient]) -> None:
    wrong, asked = [], 0
    for role in ROLES:
        asking = Asking(as_role(role))
        for method in sorted(method for method, named in LEAST if named == route):
            for address in _addresses(route, world) if role == "admin" else ():
                asking.ask(method, address, b"{}")
            address = address_of(route, world)
            if method != "GET":
                _send(asking, method, route, address, all_values=role == "admin")
            _question(asking, method, route, address, all_values=role == "admin")
        wrong += [f"{role}: {line}" for line in asking.wrong]
        asked += asking.asked
    assert asked > 20
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:12])


def _addresses(route: str, world: World) -> Iterator[str]:
    for word in ("{pk}", "{token_id}", "{name}"):
        if word in route:
            start, end = route.split(word)
            head = address_of(start, world) if word != "{pk}" else f"/api/v1/{start}"
            yield from (head + quote(place, safe="") + end for place in PLACES)


def _send(asking: Asking, method: str, route: str, address: str, *, all_values: bool) -> None:
    for body in BODIES if all_values else BODIES[::4]:
        asking.ask(method, address, body)
    for content_type in TYPES if all_values else TYPES[::4]:
        asking.ask(method, address, b"{}", content_type)
    names = fields(method, route)
    for value in ODD if all_values else ODD[::5]:
        asking.ask(method, address, json.dumps(dict.fromkeys(names, value)).encode())
        for name in names if all_values else ():
            asking.ask(method, address, json.dumps({name: value}).encode())


def _question(asking: Asking, method: str, route: str, address: str, *, all_values: bool) -> None:
    for name in parameters(method, route):
        for value in ASKED if all_values else ASKED[1:2]:
            asking.ask(method, f"{address}?{name}={quote(value, safe='')}", b"" if method == "GET" else b"{}")
    asking.ask(method, f"{address}?%ff=%ff&page=1&page=2", b"")
