"""Which moment nodes are judged silent at, by the times of the newest reports alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.reporting import Reporting

SILENT = timedelta(seconds=10)
START = datetime(2026, 1, 1, tzinfo=UTC)


def after(*seconds: float) -> Reporting:
    """What is known after looks that found newest reports of these seconds."""
    reporting = Reporting()
    for second in seconds:
        reporting = reporting.heard(at(second), SILENT)
    return reporting


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def test_while_reports_come_the_newest_is_the_reference() -> None:
    assert after(0, 1, 2, 11.9).reference == at(11.9)


def test_without_any_node_there_is_none() -> None:
    assert Reporting().heard(None, SILENT).reference is None


def test_after_a_gap_the_reference_stays_before_it_until_all_had_time_to_report() -> None:
    assert after(0, 60).reference == at(0)
    assert after(0, 60, 69.9).reference == at(0)
    assert after(0, 60, 69.9, 70).reference == at(70)


def test_a_second_gap_in_that_time_starts_it_anew() -> None:
    assert after(0, 60, 63, 80, 89).reference == at(0)
    assert after(0, 60, 63, 80, 89, 90).reference == at(90)


def test_when_the_reporting_node_is_removed_the_gap_is_forgotten() -> None:
    assert after(0, 60, 5).reference == at(5)


@given(st.lists(st.floats(0, 9.9), min_size=1, max_size=30))
def test_without_gaps_the_newest_always_is_the_reference(steps: list[float]) -> None:
    reporting, second = Reporting(), 0.0
    for step in steps:
        second += step
        reporting = reporting.heard(at(second), SILENT)
        assert reporting.reference == at(second)
