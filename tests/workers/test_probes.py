"""Since when an engine has had no request, by what it counts and not only by what it says it does just now."""

from __future__ import annotations

import pytest

from tests.workers.control import make_spec
from workers.contract import EngineSample, Phase
from workers.probes import Probe, _quiet_since, idle_since
from workers.reconcile import Replica


def probe(
    running: float | None = 0.0, ended: float | None = 5.0, quiet_since: float | None = None, kv: float | None = 0.0
) -> Probe:
    sample = EngineSample(running=running, waiting=0.0, requests_total=ended, prompt_tokens_total=80.0, kv_usage=kv)
    return Probe(0.0, ready=True, sample=sample, answered=0.0, quiet_since=quiet_since)


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (probe(), None, 50.0),
        (probe(), probe(quiet_since=7.0), 7.0),
        (probe(ended=6.0), probe(quiet_since=7.0), 50.0),  # one came and ended in between
        (probe(ended=1.0), probe(quiet_since=7.0), 50.0),  # counted anew
        (probe(running=1.0), probe(quiet_since=7.0), None),
        (probe(), probe(running=1.0), 50.0),
        (probe(kv=0.01), probe(quiet_since=7.0), None),  # blocks that nobody has pulled yet
        (probe(kv=None), probe(quiet_since=7.0), None),
        (probe(ended=None), probe(ended=None), None),  # it does not count
        (Probe(0.0), probe(quiet_since=7.0), None),  # no answer
    ],
)
def test_it_is_quiet_since_it_was_first_seen_so_with_as_many_ended(
    now: Probe, before: Probe | None, expected: float | None
) -> None:
    assert _quiet_since(now, before, 50.0) == expected


def test_a_drain_counts_what_was_quiet_before_it_and_begins_anew_with_each_request() -> None:
    draining = Replica(make_spec(1), Phase.DRAINING, since=40.0)
    assert idle_since(draining, probe(quiet_since=7.0), 50.0) == 7.0
    later = Replica(make_spec(1), Phase.DRAINING, since=40.0, idle_since=7.0)
    assert idle_since(later, probe(quiet_since=7.0), 51.0) == 7.0
    assert idle_since(later, probe(quiet_since=51.0), 51.0) == 51.0
    assert idle_since(later, probe(running=1.0), 52.0) is None
    assert idle_since(draining, probe(ended=None), 50.0) == 50.0
    assert idle_since(later, probe(ended=None), 50.0) == 7.0
