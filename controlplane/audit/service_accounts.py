"""Accounts of programs. Role and access change as a person's do (`people`); tokens are given by `tokens.issue`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction

from controlplane.audit import people
from controlplane.audit.models import ServiceAccount
from controlplane.audit.services import Actor, record
from controlplane.domain.problems import DomainError, Problem

if TYPE_CHECKING:
    from django.db.models import QuerySet


@transaction.atomic
def create(*, name: str, role: str, description: str = "", actor: Actor) -> ServiceAccount:
    """No password is made: the account is of use from its first token on."""
    user = people.new_user(username=name, role=role)
    account = ServiceAccount.objects.create(user=user, description=description, created_by=actor.name)
    record(actor, "create-service-account", user, after={"role": role, "description": description})
    return account


@transaction.atomic
def describe(pk: int, *, description: str, actor: Actor) -> ServiceAccount:
    account = ServiceAccount.objects.select_for_update().filter(pk=pk).first()
    if account is None:
        raise DomainError(Problem("service-account-unknown", f"There is no service account {pk}.", "List them."))
    before, account.description = account.description, description
    if before != description:
        account.save(update_fields=["description"])
        record(
            actor,
            "describe-service-account",
            account.user,
            before={"description": before},
            after={"description": description},
        )
    return account


def listed() -> QuerySet[ServiceAccount]:
    return ServiceAccount.objects.select_related("user").order_by("user__username")
