"""What this web process counts of its own work, for Prometheus. Each web process has its own; docs/metrics.md says what
they mean."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram, Info

from controlplane.settings import VERSION

TAKEN, REFUSED, SLOW_DOWN, FAILED = "taken", "refused", "slow_down", "failed"
REPORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Info("forebay_build", "The version that this process runs").info({"version": VERSION})
_reports = Counter("forebay_reports", "Reports of nodes that were answered", ["outcome"])
_seconds = Histogram("forebay_report_duration_seconds", "Time to the answer of a report", buckets=REPORT_S)
_waiting = Gauge("forebay_reports_waiting", "Reports that wait for a thread, or are on one")
_period = Gauge("forebay_reports_period_seconds", "How often nodes are asked to report at present")
reports_from_memory = Counter("forebay_reports_from_memory", "Reports that said nothing new and took no thread")
_watchers = Gauge("forebay_live_watchers", "Pages and programs that watch the fleet over a websocket here")
_backlog = Gauge("forebay_recorder_backlog_windows", "Sampling windows that wait to be written to the database")
windows_dropped = Counter(
    "forebay_recorder_windows_dropped", "Sampling windows given up because the database was away for too long"
)
# A series for each outcome from the start: a rate over one that appears later misses its first step.
_by_outcome = {name: _reports.labels(name) for name in (TAKEN, REFUSED, SLOW_DOWN, FAILED)}


def report(status: int, seconds: float) -> None:
    """One report was answered with this HTTP status. Runs once a report."""
    _by_outcome[_outcome(status)].inc()
    _seconds.observe(seconds)


def look_at(
    *,
    watchers: Callable[[], int],
    backlog: Callable[[], int],
    waiting: Callable[[], int],
    period_s: Callable[[], float],
) -> None:
    """Ask these whenever somebody reads the figures."""
    _watchers.set_function(watchers)
    _backlog.set_function(backlog)
    _waiting.set_function(waiting)
    _period.set_function(period_s)


def _outcome(status: int) -> str:
    if status < 300:
        return TAKEN
    if status in (429, 503):
        return SLOW_DOWN
    return REFUSED if status < 500 else FAILED
