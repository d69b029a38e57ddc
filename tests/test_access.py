"""Every address there is, times who may use it. The tables of REST and of the pages are beside their own tests
(`tests/api/test_permissions.py`, `tests/web/test_access.py`); here are all others, tokens and their scopes, sockets,
and the proof that nothing is in no table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.routing import URLRouter
from django.db import connections, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, get_resolver

from controlplane.audit.roles import SCOPES, Level
from controlplane.telemetry.hub import Hub
from controlplane.telemetry.sockets import BearerOrSession, routes
from tests.api.conftest import *  # noqa: F403 - the world and the callers of the REST tests
from tests.api.conftest import World
from tests.api.test_permissions import LEAST, address_of, flat, readable
from tests.api.test_tokens import bearing
from tests.factories import make_token, make_user
from tests.web.test_access import PAGES, POSTS, PUBLIC

# What is neither REST nor one of our pages. "anybody": also before signing in. "self": every account, for itself.
# "staff": by Django's own flag, which no role has. "node": by a node's own token. "closed": 404 to everybody.
OTHERS = {
    "accounts/login/": "anybody",
    "accounts/login/code/confirm/": "anybody",
    "accounts/logout/": "anybody",
    "accounts/inactive/": "anybody",
    "accounts/signup/": "anybody",  # says that it is closed
    "accounts/confirm-email/": "anybody",
    "accounts/^confirm-email/{key}/": "anybody",
    "accounts/password/reset/": "anybody",
    "accounts/password/reset/done/": "anybody",
    "accounts/password/reset/key/done/": "anybody",
    "accounts/^password/reset/key/{uidb36}/": "anybody",
    "accounts/password/change/": "self",
    "accounts/password/set/": "closed",
    "accounts/email/": "closed",
    "accounts/reauthenticate/": "self",
    "accounts/2fa/": "self",
    "accounts/2fa/authenticate/": "anybody",  # in the middle of signing in; else it leads to its start
    "accounts/2fa/reauthenticate/": "self",
    "accounts/2fa/totp/activate/": "self",
    "accounts/2fa/totp/deactivate/": "self",
    "accounts/2fa/recovery-codes/": "self",
    "accounts/2fa/recovery-codes/generate/": "self",
    "accounts/2fa/recovery-codes/download/": "self",
    "agent/v1/join": "node",
    "agent/v1/report": "node",
    "metrics": "viewer",
}
SOCKETS = {"ws/live": "viewer"}
CALLERS = ("anonymous", "nobody", "viewer", "operator", "admin")
ROLE_OF = {"nobody": "", "viewer": "viewer", "operator": "operator", "admin": "admin"}
pytestmark = pytest.mark.django_db


def others() -> Iterator[tuple[str, URLPattern]]:
    for route, pattern in flat(get_resolver()):
        if not route.startswith(("api/v1/", "admin/")) and pattern.name not in set(PAGES) | PUBLIC:
            yield readable(route), pattern


@pytest.fixture
def client_of(db: None) -> Callable[[str], Client]:
    def client(caller: str) -> Client:
        made = Client()
        if caller in ROLE_OF:
            made.force_login(make_user(ROLE_OF[caller]), backend="django.contrib.auth.backends.ModelBackend")
        return made

    return client


def test_no_address_is_in_no_table() -> None:
    assert {route for route, _ in others()} == set(OTHERS)
    pages = {name for name, role in PAGES.items() if role is None}
    assert pages == set(POSTS), "each page is in the table by what it takes"


@pytest.mark.parametrize("caller", CALLERS)
def test_what_is_neither_page_nor_rest(caller: str, client_of: Callable[[str], Client]) -> None:
    client = client_of(caller)
    client.raise_request_exception = False
    for route, who in OTHERS.items():
        address = "/" + route.replace("^", "").replace("{uidb36}", "1-x").replace("{key}", "x")
        answer = client.get(address)
        if who == "node":
            assert answer.status_code == 405, route
            answer = client.post(address, b"{}", content_type="application/json")
        assert _seen(answer) in _lawful(who, caller), (route, answer.status_code)


def _seen(answer: HttpResponse) -> int | str:
    to_login = answer.status_code == 302 and answer["Location"].startswith("/accounts/login/?next=")
    return "to login" if to_login else answer.status_code


def _lawful(who: str, caller: str) -> set[int | str]:
    if who == "viewer":
        return {{"anonymous": 401, "nobody": 403}.get(caller, 200)}
    if who == "self":
        return {"to login"} if caller == "anonymous" else {200, 302, 404}  # 302: to say the password again
    return {"anybody": {200, 302, 404}, "closed": {404}, "node": {400, 401, 403}}[who]


@pytest.mark.parametrize("caller", CALLERS)
def test_no_role_opens_django_s_admin(caller: str, client_of: Callable[[str], Client]) -> None:
    client, seen = client_of(caller), 0
    for route, _ in flat(get_resolver()):
        if not route.startswith("admin/"):
            continue
        address = "/" + "/".join("1" if part[:1] in "<(^" else part for part in route.split("/"))
        answer = client.get(address, follow=True)
        end = answer.redirect_chain[-1][0] if answer.redirect_chain else ""
        if caller == "anonymous":
            assert end.startswith("/accounts/login/"), address
        else:
            assert answer.status_code in {403, 404} or end.startswith("/accounts/"), address
        seen += 1
    assert seen > 10


@pytest.mark.parametrize("scope", SCOPES)
def test_a_token_opens_what_its_scope_allows_and_no_more(scope: str, world: World) -> None:
    """Of an admin, so that the scope alone decides."""
    client = bearing(make_token(make_user("admin"), scope))
    levels = {"anonymous": Level.NONE, "nobody": Level.NONE} | {
        "viewer": Level.VIEWER, "operator": Level.OPERATOR, "admin": Level.ADMIN,
    }  # fmt: skip
    for (method, route), least in LEAST.items():
        with transaction.atomic():
            answer = client.generic(method, address_of(route, world), b"{}", content_type="application/json")
            transaction.set_rollback(True)
        told = (method, route, answer.status_code)
        if (method, route) == ("POST", "tokens"):
            assert answer.status_code == 401, "no token is had by a token"
        elif levels[least] <= SCOPES[scope]:
            assert answer.status_code not in {401, 403}, told
        else:
            assert answer.status_code == 403, told
            assert "token of scope" in answer.json()["detail"], told


@pytest.mark.parametrize("caller", ["viewer", "admin"])
def test_no_page_takes_a_token(caller: str) -> None:
    header = {"Authorization": f"Token {make_token(make_user(caller))}"}
    for address in ("/", "/settings/", "/settings/users", "/nodes/"):
        assert Client().get(address, headers=header).status_code == 302


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "caller", [*CALLERS, *(f"{role} by token, {scope}" for role in ("nobody", "viewer") for scope in SCOPES)]
)
async def test_a_socket_opens_to_its_least_role_and_above(caller: str) -> None:
    """Without a broker here, who may watch is told to come again later; the others what they lack."""
    hub = Hub()
    assert {readable(str(route.pattern)) for route in routes(hub)} - {""} == set(SOCKETS)
    role, _, scope = caller.partition(" by token, ")
    headers = await sync_to_async(_headers)(role, scope)
    page = ApplicationCommunicator(
        BearerOrSession(URLRouter(routes(hub))),
        {"type": "websocket", "path": "/ws/live", "query_string": b"", "headers": headers},
    )
    await page.send_input({"type": "websocket.connect"})
    assert (await page.receive_output(timeout=5))["type"] == "websocket.accept"
    code = (await page.receive_output(timeout=5))["code"]
    assert code == {"anonymous": 4401, "nobody": 4403}.get(role, 1013)
    await page.send_input({"type": "websocket.disconnect", "code": code})  # as a server does once it is closed
    await page.wait(timeout=5)
    await hub.stop()
    await asyncio.sleep(0)
    await sync_to_async(connections.close_all)()


def _headers(role: str, scope: str) -> list[tuple[bytes, bytes]]:
    if role == "anonymous":
        return [(b"origin", b"http://testserver")]
    user = make_user(ROLE_OF[role])
    if scope:
        return [(b"authorization", f"Token {make_token(user, scope)}".encode())]
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    return [(b"origin", b"http://testserver"), (b"cookie", cookie.encode())]
