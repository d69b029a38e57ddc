"""Where alerts are sent: making, changing, trying and deleting targets. Addresses and secrets go in, never out."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.utils import timezone

from controlplane.alerts import courier, messages, wire
from controlplane.alerts.models import AlertTarget
from controlplane.alerts.sealing import CannotOpen, Route, seal, unseal
from controlplane.alerts.services.checks import text_problem
from controlplane.alerts.wire import BadAddress, Outcome
from controlplane.audit.services import Actor, record
from controlplane.domain.alerting import SEVERITIES
from controlplane.domain.problems import Problem
from controlplane.fleet.errors import Invalid, NotFound

Kind = AlertTarget.Kind
_EMAIL = re.compile(r"[^@\s,<>\x00-\x1f]{1,64}@[^@\s,<>\x00-\x1f]{1,190}")
MOST_ADDRESSES = 20


@transaction.atomic
def create_target(
    *, name: str, kind: str, address: str = "", secret: str = "", min_severity: str = "warning",
    enabled: bool = True, actor: Actor,
) -> AlertTarget:  # fmt: skip
    """`address`: a URL, or e-mail addresses with commas; PagerDuty needs none. `secret`: what signs a webhook, or
    PagerDuty's routing key."""
    route = Route(address.strip(), secret.strip())
    if problems := _problems(None, name, kind, route, min_severity):
        raise Invalid(problems)
    made = AlertTarget.objects.create(
        name=name.strip(), kind=kind, shown=_shown_address(kind, route), sealed=seal(route), enabled=enabled,
        min_severity=min_severity,
    )  # fmt: skip
    record(actor, "create", made, after=_shown(made))
    return made


@transaction.atomic
def change_target(target_id: int, *, actor: Actor, **values: Any) -> AlertTarget:
    """What is given is changed; an address or a secret that is not given stays. Its kind stays."""
    target = _locked(target_id)
    before, was = _shown(target), _route(target)
    route = Route(str(values.get("address", was.address)).strip(), str(values.get("secret", was.secret)).strip())
    name, severity = values.get("name", target.name), values.get("min_severity", target.min_severity)
    if problems := _problems(target.pk, name, target.kind, route, severity):
        raise Invalid(problems)
    target.name, target.min_severity = name.strip(), severity
    target.enabled = values.get("enabled", target.enabled)
    target.shown, target.sealed = _shown_address(target.kind, route), seal(route)
    target.save(update_fields=["name", "min_severity", "enabled", "shown", "sealed"])
    resealed = {"route": "set anew"} if route != was else {}
    if resealed or _shown(target) != before:
        record(actor, "change", target, before=before, after=_shown(target) | resealed)
    return target


@transaction.atomic
def delete_target(target_id: int, *, actor: Actor, reason: str = "") -> None:
    """What it has not been told yet, it will not be."""
    target = _locked(target_id)
    record(actor, "delete", target, before=_shown(target), reason=reason)
    target.delete()


def try_target(target_id: int, *, actor: Actor) -> Outcome:
    """Send a message that says it is a test, now, and say what came of it. Waits for the target, 10 s at the most."""
    target = AlertTarget.objects.filter(pk=target_id).first()
    if target is None:
        raise NotFound("alert target", target_id)
    now = timezone.now()
    outcome = courier.send(target, [messages.sample(now)], str(uuid.uuid4()), now)
    with transaction.atomic():
        AlertTarget.objects.filter(pk=target.pk).update(error="" if outcome.ok else outcome.message[:255])
        record(actor, "test", target, after={"ok": outcome.ok, "message": outcome.message})
    return outcome


def _locked(target_id: int) -> AlertTarget:
    target = AlertTarget.objects.select_for_update().filter(pk=target_id).first()
    if target is None:
        raise NotFound("alert target", target_id)
    return target


def _route(target: AlertTarget) -> Route:
    try:
        return unseal(target.sealed)
    except CannotOpen:
        return Route("")


def _problems(pk: int | None, name: str, kind: str, route: Route, severity: str) -> list[Problem]:
    found = text_problem("name", name, 120, "A target's name")
    if AlertTarget.objects.filter(name=name.strip()).exclude(pk=pk).exists():
        found.append(Problem("name", f"There is a target {name.strip()} already.", "Choose another name."))
    if severity not in set(SEVERITIES):
        found.append(Problem("min_severity", "There is no such severity.", f"Use {', '.join(SEVERITIES)}."))
    if any(len(text) > 2000 or "\x00" in text for text in (route.address, route.secret)):
        return [*found, Problem("address", "Addresses and secrets are at most 2000 plain characters.", "Shorten it.")]
    return found + _route_problems(kind, route)


def _route_problems(kind: str, route: Route) -> list[Problem]:
    if kind not in Kind.values:
        return [Problem("kind", f"There is no kind {kind}.", f"Use {', '.join(Kind.values)}.")]
    if kind == Kind.EMAIL:
        given = courier.addresses(route.address)
        if given and len(given) <= MOST_ADDRESSES and all(_EMAIL.fullmatch(address) for address in given):
            return []
        text = f"This needs 1 to {MOST_ADDRESSES} e-mail addresses."
        return [Problem("address", text, "Separate them with commas.")]
    found = []
    if kind == Kind.PAGERDUTY and not route.secret:
        text = "PagerDuty needs the routing key of its integration."
        found.append(Problem("secret", text, "Give it as the secret."))
    if route.address or kind != Kind.PAGERDUTY:
        try:
            wire.check_url(route.address)
        except BadAddress as error:
            found.append(Problem("address", str(error), "Give the address that the receiver shows you."))
    return found


def _shown_address(kind: str, route: Route) -> str:
    """Paths and queries of such addresses are often what opens them."""
    if kind == Kind.EMAIL:
        return ", ".join(courier.addresses(route.address))[:255]
    parts = urlsplit(route.address or courier.PAGERDUTY)
    return f"{parts.scheme}://{parts.netloc}/…"[:255]


def _shown(target: AlertTarget) -> dict[str, object]:
    return {
        "name": target.name, "kind": target.kind, "address": target.shown, "enabled": target.enabled,
        "min_severity": target.min_severity,
    }  # fmt: skip
