"""Who is let in to the live socket, and who is dropped from it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from knox.models import AuthToken

from controlplane.audit.models import TokenGrant
from controlplane.audit.roles import SCOPES
from controlplane.telemetry import consumers
from tests.factories import make_token, make_user
from tests.telemetry.page import Page, cookie_of, in_thread

pytestmark = pytest.mark.django_db(transaction=True)


async def test_anonymous_is_told_to_log_in(live_valkey: Any, pages: Any) -> None:
    page = await pages(None)
    assert await page.closed() == 4401


async def test_a_user_without_a_role_is_told_so(live_valkey: Any, pages: Any) -> None:
    page = await pages(await in_thread(make_user)(""))
    assert await page.closed() == 4403


async def test_an_inactive_user_is_not_let_in(live_valkey: Any, pages: Any, viewer: User) -> None:
    cookie = await in_thread(cookie_of)(viewer)
    await in_thread(User.objects.filter(pk=viewer.pk).update)(is_active=False)
    page = Page(pages.hub, cookie)
    await page.connect()
    assert await page.closed() == 4401


@pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
async def test_a_foreign_origin_is_refused(live_valkey: Any, pages: Any, viewer: User, origin: str) -> None:
    page = Page(pages.hub, await in_thread(cookie_of)(viewer), origin=origin)
    assert not await page.connect()


async def test_an_unknown_address_is_refused(live_valkey: Any, pages: Any, viewer: User) -> None:
    page = Page(pages.hub, await in_thread(cookie_of)(viewer), path="/ws/other")
    assert not await page.connect()


async def test_who_lost_the_role_is_dropped(
    live_valkey: Any, pages: Any, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "ASK_AGAIN_S", 0.0)
    page = await pages(viewer)
    await page.frame()
    await in_thread(viewer.groups.clear)()
    assert await page.closed() == 4403


async def test_who_logged_out_is_dropped(
    live_valkey: Any, pages: Any, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.contrib.sessions.models import Session

    monkeypatch.setattr(consumers, "ASK_AGAIN_S", 0.0)
    page = await pages(viewer)
    await page.frame()
    await in_thread(Session.objects.all().delete)()
    assert await page.closed() == 4401


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_program_watches_with_a_token_of_any_scope(
    scope: str, live_valkey: Any, pages: Any, viewer: User
) -> None:
    page = Page(pages.hub, "", token=await in_thread(make_token)(viewer, scope))
    assert await page.connect()
    assert (await page.frame())["seq"] >= 1
    await page.disconnect()


@pytest.mark.parametrize("token", ["", "wrong", "a" * 64, "\x00", "two words"])
async def test_a_token_that_opens_nothing_is_refused_also_beside_a_session(
    token: str, live_valkey: Any, pages: Any, viewer: User
) -> None:
    page = Page(pages.hub, await in_thread(cookie_of)(viewer), token=token)
    assert await page.connect()
    assert await page.closed() == 4401


async def test_a_revoked_token_and_one_without_scope_are_dropped(
    live_valkey: Any, pages: Any, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "ASK_AGAIN_S", 0.0)
    for end, code in ((AuthToken.objects, 4401), (TokenGrant.objects, 4403)):
        page = Page(pages.hub, "", token=await in_thread(make_token)(viewer))
        assert await page.connect()
        await page.frame()
        await in_thread(end.all().delete)()
        assert await page.closed() == code
