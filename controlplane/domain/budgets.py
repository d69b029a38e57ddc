"""When a team's budget is used up, and what its clients are told."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal


def month_of(at: datetime) -> date:
    """The first day of the month in UTC, by which budgets are counted."""
    return at.astimezone(UTC).date().replace(day=1)


def end_of(month: date) -> datetime:
    year, following = divmod(month.year * 12 + month.month, 12)
    return datetime(year, following + 1, 1, tzinfo=UTC)


def is_used_up(limit: Decimal | None, spent: Decimal) -> bool:
    return limit is not None and spent >= limit


def refusal(team: str, limit: Decimal, spent: Decimal, currency: str, until: datetime) -> str:
    return (
        f"The team {team} has used {spent:,.2f} of its budget of {limit:,.2f} {currency} this month. Its keys are "
        f"refused until {until:%Y-%m-%d %H:%M} UTC, or until an admin raises the limit."
    )
