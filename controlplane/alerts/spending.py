"""Teams whose month has come to a limit of their budget, as far as it is counted and priced."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from django.conf import settings

from controlplane.alerts.scene import Fact, Scene, Subject, Watch
from controlplane.domain.budgets import is_used_up, month_of
from controlplane.teams.budgets import Budget, budgets


def past_soft(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for budget in budgets(scene.now):
        is_over = budget.hard is not None and is_used_up(budget.hard, budget.spent_in(month_of(scene.now)))
        so = "It is past its hard limit too, and its keys are refused." if is_over else "Its keys still work."
        yield from _fact(budget, budget.soft, scene, so)


def past_hard(scene: Scene, watch: Watch) -> Iterator[Fact]:
    for budget in budgets(scene.now):
        yield from _fact(budget, budget.hard, scene, "The gateway refuses its keys until the month is over.")


def _fact(budget: Budget, limit: Decimal | None, scene: Scene, so: str) -> Iterator[Fact]:
    spent = budget.spent_in(month_of(scene.now))
    if limit is not None and is_used_up(limit, spent):
        text = f"{spent:,.2f} of {limit:,.2f} {settings.CURRENCY} are used this month. {so}"
        yield Fact(Subject("team", budget.team, budget.name, None, {"team": budget.name}), 1.0, text)
