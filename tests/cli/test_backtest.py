"""A backtest from a terminal: sent, waited for, and shown as `manage.py backtest` shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from controlplane.planning import comparing
from controlplane.planning.models import ActivityDay, Comparison
from controlplane.planning.traces import write
from tests.cli.conftest import Terminal, Wire
from tests.domain.forecast.worlds import fleet

pytestmark = pytest.mark.django_db
QUESTION = ("--quantile", "90%", "--quantile", "0.95", "--method", "last", "--method", "ar", "--judge-from-day", "1")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    write(fleet(5, 1.5), path)
    return path


@pytest.fixture
def worked(operator: Terminal) -> Callable[[], None]:
    """What is asked for is judged when it is first looked at, as a control worker would within a minute."""
    wire = operator.transport
    assert isinstance(wire, Wire)

    def work() -> None:
        wire.on_look = lambda path: None
        comparing.compare_if_due(time.time())

    def arm() -> None:
        wire.on_look = lambda path: work()

    return arm


def test_a_trace_is_judged_by_the_server_as_the_command_of_its_machine_does(
    operator: Terminal, trace: Path, worked: Callable[[], None]
) -> None:
    worked()
    shown = operator.ok("backtest", str(trace), "--tau", "2m", "--horizon", "20m", *QUESTION)
    said = StringIO()
    call_command(
        "backtest", str(trace), "--tau", "120", "--horizon", "1200", "--quantiles", ".9,.95", "--methods", "last,ar",
        "--judge-from-day", "1", stdout=said,
    )  # fmt: skip
    assert said.getvalue().splitlines()[0] in shown
    heads = [line.split("  ")[0] for line in shown.splitlines()]
    last = next(line for line in said.getvalue().splitlines()[2:] if line.split("  ")[0] in heads)
    (mine,) = [line for line in shown.splitlines() if line.split("  ")[0] == last.split("  ")[0]]
    covered, reserve = last.split()[-13], last.split()[-9]
    assert f"{float(covered):.2%}" in mine and f"{float(reserve):.2f}" in mine
    assert "COVERED 90%" in shown and "COVERED 95%" in shown
    assert not ActivityDay.objects.exists(), "nothing was imported"


def test_several_files_are_one_trace_and_the_answer_is_the_apis(
    operator: Terminal, trace: Path, tmp_path: Path, worked: Callable[[], None]
) -> None:
    whole = trace.read_text().splitlines()
    half = len(whole) // 2
    (tmp_path / "one.csv").write_text("\n".join(whole[:half]) + "\n")
    (tmp_path / "two.csv").write_text("\n".join([whole[0], *whole[half:]]))
    paths = (str(tmp_path / "one.csv"), str(tmp_path / "two.csv"))
    worked()
    both = operator.json("backtest", *paths, "--method", "last", "--warmup-days", "0")
    worked()
    alone = operator.json("backtest", str(trace), "--method", "last", "--warmup-days", "0")
    assert both["trace"] == "one.csv and 1 more" and both["question"]["warmup_days"] == 0
    assert (both["models"], both["windows"], both["mean_peak"]) == (5, alone["windows"], alone["mean_peak"])


def test_what_cannot_be_sent_or_judged_is_told_and_sends_nothing(
    operator: Terminal, trace: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("t_s,model,duration_s\n1,a,1\n")
    assert "no one trace" in operator.fails(2, "backtest", str(trace), str(other))
    bad = tmp_path / "bad.csv.gz"
    bad.write_bytes(b"\x1f\x8b\x08\x00broken")
    assert "cannot be read" in operator.fails(2, "backtest", str(bad))
    assert "The trace ends on day" in operator.fails(2, "backtest", str(trace), "--judge-from-day", "9")
    operator.fails(2, "backtest", str(trace), "--method", "oracle")
    assert not Comparison.objects.exists()


def test_a_viewer_may_not_ask_for_one(viewer: Terminal, trace: Path) -> None:
    viewer.fails(3, "backtest", str(trace))
    assert not Comparison.objects.exists()


def test_one_that_goes_on_is_told_of_and_so_is_one_that_failed(
    operator: Terminal, trace: Path, worked: Callable[[], None]
) -> None:
    begun = operator.ok("backtest", str(trace), "--no-wait")
    assert f"Backtest {Comparison.objects.get().pk} is to be begun" in begun
    assert "asked for or in work" in operator.fails(4, "backtest", str(trace))
    Comparison.objects.all().delete()
    assert "It goes on by itself" in operator.fails(6, "backtest", str(trace), "--timeout", "0")
    Comparison.objects.update(ended_at="2026-01-01T00:00Z", error="no disk")
    wire = operator.transport
    assert isinstance(wire, Wire)
    wire.on_look = lambda path: Comparison.objects.filter(ended_at=None).update(
        ended_at="2026-01-02T00:00Z", error="no disk"
    )
    assert "no disk" in operator.fails(6, "backtest", str(trace))
