"""The administrator and the key of a fresh installation."""

from __future__ import annotations

import stat
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command

from controlplane.audit.models import AuditEvent
from controlplane.audit.roles import Level, level_of
from controlplane.audit.services import Actor
from controlplane.gateway import services as gateway
from controlplane.gateway.models import ApiKey
from controlplane.management import accounts

pytestmark = pytest.mark.django_db


def test_the_first_run_makes_an_administrator_and_the_second_none() -> None:
    password = accounts.ensure_admin()
    assert password is not None
    user = get_user_model().objects.get(username="admin")
    assert level_of(user) == Level.ADMIN
    assert user.check_password(password)
    assert accounts.ensure_admin() is None
    assert AuditEvent.objects.filter(verb="create-user", subject_name="admin").count() == 1


def test_a_forgotten_password_is_replaced_and_a_disabled_admin_enabled(rf: object) -> None:
    accounts.ensure_admin()
    get_user_model().objects.filter(username="admin").update(is_active=False)
    out = StringIO()
    call_command("create_admin", stdout=out)
    password = out.getvalue().split()[-1]
    assert authenticate(rf.post("/"), username="admin", password=password) is not None


def test_the_key_of_this_machine_is_kept_privately_and_used_again(tmp_path: Path) -> None:
    first = accounts.ensure_api_key(tmp_path)
    assert accounts.ensure_api_key(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "api_key").stat().st_mode) == 0o600
    assert ApiKey.objects.get().key_hash == gateway.hash_of(first)


def test_a_revoked_key_is_replaced(tmp_path: Path) -> None:
    first = accounts.ensure_api_key(tmp_path)
    gateway.revoke_key(ApiKey.objects.get().pk, actor=Actor.system("test"))
    second = accounts.ensure_api_key(tmp_path)
    assert second != first
    assert ApiKey.objects.filter(revoked_at=None).get().key_hash == gateway.hash_of(second)


def test_a_key_can_be_made_from_the_shell() -> None:
    out = StringIO()
    call_command("create_api_key", "batch job", "--requests-per-minute", "30", stdout=out)
    key = ApiKey.objects.get(name="batch job")
    assert key.key_hash == gateway.hash_of(out.getvalue().strip())
    assert key.requests_per_minute == 30
