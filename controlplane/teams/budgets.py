"""Which teams have used up their budgets, as far as it is counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from controlplane.domain.budgets import month_of
from controlplane.teams.models import Team


@dataclass(frozen=True, slots=True)
class Budget:
    """`spent`: in `month`, which may be over."""

    team: int
    name: str
    soft: Decimal | None
    hard: Decimal | None
    spent: Decimal
    month: date

    def spent_in(self, month: date) -> Decimal:
        return self.spent if self.month == month else Decimal(0)


def budgets(now: datetime) -> list[Budget]:
    """Of teams that have a limit. Who has not been counted has spent nothing."""
    rows = Team.objects.exclude(budget_soft=None, budget_hard=None).order_by("pk")
    columns = ("pk", "name", "budget_soft", "budget_hard", "spend__spent", "spend__month")
    return [
        Budget(pk, name, soft, hard, spent or Decimal(0), month or month_of(now))
        for pk, name, soft, hard, spent, month in rows.values_list(*columns)
    ]
