"""Which teams have used up their budgets, as far as it is counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from controlplane.domain.budgets import is_used_up, month_of
from controlplane.teams.models import Team

HARD_LIMITS = (  # all that `budgets` says of hard limits, as plain rows: the gateway compares them each second
    "SELECT t.id, t.name, t.budget_hard, s.spent, s.month FROM teams_team t "
    "LEFT JOIN teams_teamspend s ON s.team_id = t.id WHERE t.budget_hard IS NOT NULL ORDER BY t.id"
)


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


@dataclass(frozen=True, slots=True)
class TeamMonth:
    """A team as people look at it. `spent` None: nothing was counted yet."""

    team: Team
    spent: Decimal | None
    unpriced_gpu_s: float
    keys: int
    deployments: list[str]

    @property
    def state(self) -> str:
        if self.spent is None:
            return ""
        if is_used_up(self.team.budget_hard, self.spent):
            return "hard"
        return "soft" if is_used_up(self.team.budget_soft, self.spent) else ""

    @property
    def share(self) -> float | None:
        """Of the hard limit, or of the soft one where there is no other; above 1 where it is passed."""
        limit = self.team.budget_hard if self.team.budget_hard is not None else self.team.budget_soft
        if limit is None or self.spent is None:
            return None
        return float(self.spent / limit) if limit else 1.0

    @property
    def percent(self) -> int:
        """Of it, whole: 99 where it is not reached yet."""
        return int(100 * (self.share or 0.0))


def months(now: datetime) -> list[TeamMonth]:
    """All teams, by name, and what this month has come to."""
    month, found = month_of(now), []
    for team in Team.objects.select_related("spend").prefetch_related("keys", "deployments__deployment"):
        spend = getattr(team, "spend", None)
        current = spend is not None and spend.month == month
        found.append(
            TeamMonth(
                team,
                None if spend is None else spend.spent if current else Decimal(0),
                spend.unpriced_gpu_s if spend is not None and current else 0.0,
                sum(key.revoked_at is None for key in team.keys.all()),
                sorted(row.deployment.name for row in team.deployments.all()),
            )
        )
    return found
