"""Every page times every role, and what every answer promises the browser."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from django.urls import reverse
from django.urls.resolvers import URLPattern

from controlplane.fleet.models import Change
from controlplane.web import urls
from tests.web.conftest import Clients

# Lowest role that may GET it. None: POST only.
PAGES = {
    "fleet": "viewer",
    "fleet-ahead": "viewer",
    "palette": "viewer",
    "board": "viewer",
    "board-preview": "viewer",
    "plan": "operator",
    "board-apply": None,
    "board-shift": "operator",
    "changes": "viewer",
    "changes-recent": "viewer",
    "change": "viewer",
    "change-progress": "viewer",
    "change-resume": None,
    "change-rollback": None,
    "change-undo": "operator",
    "capacity": "viewer",
    "capacity-policy": "operator",
    "capacity-import": "operator",
    "capacity-import-check": None,
    "capacity-methods": "viewer",
    "capacity-begins": "viewer",
    "capacity-compare": None,
    "capacity-preview": "operator",
    "scaling": "viewer",
    "scaling-now": "viewer",
    "scaling-open": "viewer",
    "scaling-policy": "operator",
    "scaling-plan": "viewer",
    "scaling-apply": None,
    "scaling-dismiss": None,
    "pool": "viewer",
    "pool-now": "viewer",
    "pool-add": None,
    "pool-set": None,
    "cost": "viewer",
    "teams": "viewer",
    "team-new": "admin",
    "team": "admin",
    "team-remove": None,
    "prices": "viewer",
    "price-set": None,
    "deployment-speed": "viewer",
    "alerts": "viewer",
    "alerts-now": "viewer",
    "alerts-badge": "viewer",
    "alert": "viewer",
    "alert-acknowledge": None,
    "alert-silence": "operator",
    "silence-end": None,
    "alert-rules": "viewer",
    "alert-rule": "admin",
    "alert-targets": "admin",
    "alert-target": "admin",
    "target-test": None,
    "target-delete": None,
    "activity": "viewer",
    "logs": "viewer",
    "recent": "viewer",
    "activity-csv": "viewer",
    "activity-jsonl": "viewer",
    "brake": "viewer",
    "brake-banner": "viewer",
    "brake-release": None,
    "brake-restore": None,
    "node-qualification": "viewer",
    "node-qualify": None,
    "node-weights": "viewer",
    "node-weights-want": None,
    "model-weights": "viewer",
    "model-weights-want": None,
    "gpu-qualify": None,
    "gpu-withdraw": None,
    "gpu-accept": None,
    "gpu-unaccept": None,
    "models": "viewer",
    "register": "operator",
    "fit": "operator",
    "model": "viewer",
    "model-delete": "operator",
    "deployment-new": "operator",
    "deployment": "viewer",
    "replicas": "viewer",
    "deployment-edit": "operator",
    "deployment-delete": "operator",
    "deployment-owners": "admin",
    "playground": None,
    "nodes": "viewer",
    "node-add": "admin",
    "token-cancel": None,
    "node": "viewer",
    "node-parts": "viewer",
    "split": "operator",
    "partition-add": None,
    "node-plan": None,
    "node-labels": "operator",
    "node-label": None,
    "node-cordon": None,
    "node-uncordon": None,
    "node-drain": "operator",
    "node-drain-plan": "operator",
    "node-drain-progress": "viewer",
    "node-cancel-drain": None,
    "node-revoke": "admin",
    "node-owners": "admin",
    "node-remove": "admin",
    "partition": "viewer",
    "assign": "operator",
    "preview": "operator",
    "release": "operator",
    "partition-delete": "operator",
    "settings": "viewer",
    "rest-token-new": None,
    "rest-token-revoke": None,
    "keys": "admin",
    "key-revoke": None,
    "users": "admin",
    "user-role": None,
    "user-password": None,
    "user-second-factor": None,
    "user-enable": None,
    "user-disable": None,
    "service-new": None,
    "service": "admin",
    "service-token-new": None,
    "service-token-revoke": None,
}
PUBLIC = {"sign-on", "sign-on-back"}  # before anybody is signed in
# Lowest role that may POST it, where that is not the one that may GET it.
POSTS = {
    "capacity-import-check": "operator",
    "capacity-compare": "operator",
    "node-qualify": "operator",
    "node-weights-want": "operator",
    "model-weights-want": "operator",
    "gpu-qualify": "operator",
    "gpu-withdraw": "operator",
    "gpu-accept": "operator",
    "gpu-unaccept": "operator",
    "alert-acknowledge": "operator",
    "silence-end": "operator",
    "team-remove": "admin",
    "price-set": "admin",
    "scaling-apply": "operator",
    "scaling-dismiss": "operator",
    "pool-set": "operator",
    "pool-add": "operator",
    "target-test": "admin",
    "target-delete": "admin",
    "brake-release": "operator",
    "brake-restore": "operator",
    "board-apply": "operator",
    "change-resume": "operator",
    "change-rollback": "operator",
    "playground": "operator",
    "token-cancel": "admin",
    "partition-add": "operator",
    "node-plan": "operator",
    "node-label": "operator",
    "node-cordon": "operator",
    "node-uncordon": "operator",
    "node-cancel-drain": "operator",
    "rest-token-new": "viewer",
    "rest-token-revoke": "viewer",
    "key-revoke": "admin",
    "user-role": "admin",
    "user-password": "admin",
    "user-second-factor": "admin",
    "user-enable": "admin",
    "user-disable": "admin",
    "service-new": "admin",
    "service-token-new": "admin",
    "service-token-revoke": "admin",
}
LEVELS = {None: -1, "": 0, "viewer": 1, "operator": 2, "admin": 3}
ROLES = list(LEVELS)


def address(name: str, fleet: SimpleNamespace) -> str:
    pattern = next(p for p in urls.urlpatterns if isinstance(p, URLPattern) and p.name == name)
    if name in {"playground"}:
        return reverse(f"web:{name}", args=[fleet.deployment.name])
    if name == "rest-token-revoke":
        return reverse(f"web:{name}", args=["abcdefgh"])
    if name.startswith("change"):
        return reverse(f"web:{name}", args=[done_change(fleet).pk] if "<int:pk>" in str(pattern.pattern) else [])
    if name == "service-token-revoke":
        return reverse(f"web:{name}", args=[fleet.service.pk, "abcdefgh"])
    subjects = {
        "service": fleet.service,
        "model": fleet.model,
        "deployment": fleet.deployment,
        "replicas": fleet.deployment,
        "alert": fleet.alert,
        "silence": fleet.silence,
        "target": fleet.target,
        "team": fleet.team,
        "gpu": fleet.prefill.gpus.get(),
        "scaling": fleet.plan,
    }
    if name in {"alert-rule", "alert-target"}:
        return reverse(f"web:{name}", args=[(fleet.rule if name == "alert-rule" else fleet.target).pk])
    partition = name in {"partition", "assign", "preview", "release", "partition-delete"}
    subject = fleet.prefill if partition else subjects.get(name.split("-")[0], fleet.node)
    return reverse(f"web:{name}", args=[subject.pk] if "<int:pk>" in str(pattern.pattern) else [])


def done_change(fleet: SimpleNamespace) -> Change:
    """One that left the fleet as it is, and could be undone."""
    here = {"id": fleet.deployment.pk, "name": fleet.deployment.name}
    move = {
        "partition": {"id": fleet.prefill.pk, "name": str(fleet.prefill)},
        "gpus": 1,
        "action": "relabel",
        "before": {"deployment": here, "role": "decode"},
        "after": {"deployment": here, "role": "prefill"},
    }
    row = {"moves": [move], "state": "done", "version": 0, "actor_name": "olga", "source": "web"}
    return Change.objects.get_or_create(pk=1, defaults=row)[0]


def test_every_address_is_in_the_table() -> None:
    assert {pattern.name for pattern in urls.urlpatterns} == set(PAGES) | PUBLIC
    assert {name for name, role in PAGES.items() if role is None} == set(POSTS)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", [name for name, lowest in PAGES.items() if lowest])
def test_a_page_opens_for_its_roles_only(name: str, role: str | None, as_role: Clients, fleet: SimpleNamespace) -> None:
    answer = as_role(role).get(address(name, fleet))
    if role is None:
        assert answer.status_code == 302
        assert answer["Location"].startswith("/accounts/login/?next=/")
    elif LEVELS[role] < LEVELS[PAGES[name]]:
        assert answer.status_code == 403
        assert "Nothing was changed" in answer.content.decode()
    else:
        assert answer.status_code == (302 if name == "partition" else 200)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", POSTS)
def test_a_change_is_for_its_roles_only(name: str, role: str | None, as_role: Clients, fleet: SimpleNamespace) -> None:
    answer = as_role(role).post(address(name, fleet))
    if role is None:
        assert answer.status_code == 302
        assert "/accounts/login/" in answer["Location"]
    elif LEVELS[role] < LEVELS[POSTS[name]]:
        assert answer.status_code == 403
    else:
        assert answer.status_code != 403


@pytest.mark.parametrize("name", POSTS)
def test_what_changes_something_cannot_be_opened_by_a_link(name: str, as_role: Clients, fleet: SimpleNamespace) -> None:
    assert as_role("admin").get(address(name, fleet)).status_code == 405


@pytest.mark.parametrize("name", [name for name, lowest in PAGES.items() if lowest])
def test_no_page_has_inline_scripts_or_handlers(name: str, as_role: Clients, fleet: SimpleNamespace) -> None:
    answer = as_role("admin").get(address(name, fleet), follow=True)
    page = answer.getvalue().decode()
    assert "script-src 'self'" in answer["Content-Security-Policy"]
    assert "'unsafe-eval'" not in answer["Content-Security-Policy"]
    assert [tag for tag in re.findall(r"<script\b[^>]*>", page) if "src=" not in tag] == []
    assert re.findall(r"<[^>]+\son[a-z]+\s*=", page) == []
    assert "javascript:" not in page


def test_a_part_of_a_page_sends_an_expired_session_to_the_login(as_role: Clients, fleet: SimpleNamespace) -> None:
    answer = as_role(None).get(reverse("web:recent"), headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer["HX-Redirect"] == "/accounts/login/"


def test_a_viewer_is_offered_nothing_that_is_not_allowed(as_role: Clients, fleet: SimpleNamespace) -> None:
    page = as_role("viewer").get(reverse("web:node", args=[fleet.node.pk])).content.decode()
    for word in ("Cordon", "Revoke", "Assign", "Release", "Split…"):
        assert f">{word}<" not in page
    page = as_role("viewer").get(reverse("web:deployment", args=[fleet.deployment.pk])).content.decode()
    assert "Playground" not in page


def test_no_page_tells_an_engine_key(as_role: Clients, fleet: SimpleNamespace) -> None:
    client = as_role("admin")
    for name, lowest in PAGES.items():
        if lowest:
            assert fleet.prefill.engine_key not in client.get(address(name, fleet), follow=True).getvalue().decode()
