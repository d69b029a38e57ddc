"""Budgets: by calendar months in UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.budgets import end_of, is_used_up, month_of, refusal


@given(st.datetimes(min_value=datetime(2001, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_each_moment_lies_in_its_month_and_a_month_ends_where_the_next_begins(at: datetime) -> None:
    month = month_of(at)
    assert datetime(month.year, month.month, 1, tzinfo=UTC) <= at < end_of(month)
    assert month_of(end_of(month)) == end_of(month).date()
    assert month_of(end_of(month) - timedelta(seconds=1)) == month


def test_a_month_is_one_in_utc() -> None:
    assert month_of(datetime(2026, 12, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == date(2026, 11, 1)
    assert end_of(date(2026, 12, 1)) == datetime(2027, 1, 1, tzinfo=UTC)


def test_a_limit_is_used_up_once_it_is_reached_and_no_limit_never() -> None:
    assert is_used_up(Decimal(100), Decimal("100.00")) and not is_used_up(Decimal(100), Decimal("99.99"))
    assert is_used_up(Decimal(0), Decimal(0)), "a budget of nothing"
    assert not is_used_up(None, Decimal(10**9))


def test_a_refusal_says_who_how_much_and_until_when() -> None:
    said = refusal("search", Decimal(1000), Decimal("1012.5"), "EUR", end_of(date(2026, 11, 1)))
    assert "The team search has used 1,012.50 of its budget of 1,000.00 EUR this month." in said
    assert "until 2026-12-01 00:00 UTC, or until an admin raises the limit" in said
