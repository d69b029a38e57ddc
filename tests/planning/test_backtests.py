"""`manage.py backtest`: a table, JSON and a page of what forecasts would have held."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from controlplane.domain.forecast.activity import Requests
from controlplane.domain.forecast.hazards import DAY_S
from controlplane.planning.traces import write
from tests.domain.forecast.worlds import fleet


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "fleet.csv.gz"
    write(fleet(15, 2.0), path)
    return path


def judged(trace: Path, tmp_path: Path, *options: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    call_command("backtest", str(trace), "--json", str(out), *options, stdout=StringIO(), stderr=StringIO())
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def test_a_trace_becomes_a_table_json_and_a_page_that_stands_alone(trace: Path, tmp_path: Path) -> None:
    said, html = StringIO(), tmp_path / "out.html"
    options = [
        "--tau",
        "120",
        "--horizon",
        "1200",
        "--quantiles",
        ".9,.99",
        "--judge-from-day",
        "1",
        "--warmup-days",
        "0.5",
    ]
    call_command(
        "backtest", str(trace), *options, "--json", str(tmp_path / "out.json"), "--html", str(html), stdout=said
    )
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["models"], result["tau_s"], result["horizon_s"]) == (15, 120, 1200)
    best, static, reactive, clairvoyant = (
        result["methods"][name] for name in ("best", "static", "reactive", "clairvoyant")
    )
    assert 0.85 <= best["coverage"]["0.9"] <= best["coverage"]["0.99"] <= 1
    assert static["cold_per_activation"]["0.99"] == 0 and reactive["cold_per_activation"]["0.99"] == 1
    assert reactive["held_over_used"]["0.99"] == 1
    held = [one["slot_hours_held"]["0.99"] for one in (reactive, clairvoyant, static)]
    assert held == sorted(held) and best["slot_hours_held"]["0.99"] > held[1]
    assert "average of the best" in said.getvalue()
    page = html.read_text()
    assert "Plotly.newPlot" in page and page.count("<script") == 3 and "<script src" not in page


def test_a_shorter_warm_up_judges_the_same_windows(trace: Path, tmp_path: Path) -> None:
    long, short = (
        judged(trace, tmp_path, "--methods", "hour", "--judge-from-day", "1.5", "--warmup-days", days)
        for days in ("1.5", "0.3")
    )
    assert long["windows"] == short["windows"] > 50
    assert long["mean_peak"] == short["mean_peak"]


def test_a_log_that_begins_at_an_epoch_second_is_counted_from_its_first_midnight(trace: Path, tmp_path: Path) -> None:
    """A log of 2026 with the offset of its clock is the same log."""
    moved = fleet(15, 2.0)
    epoch = np.floor(1_790_000_000 / DAY_S) * DAY_S
    later = Requests.of(moved.models, moved.model, moved.at + epoch, moved.until + epoch, moved.number)
    write(later, tmp_path / "log.csv")
    options = ("--methods", "hour,ar", "--judge-from-day", "1")
    first, second = judged(trace, tmp_path, *options), judged(tmp_path / "log.csv", tmp_path, *options)
    for name in ("hour", "ar"):
        assert first["methods"][name]["coverage"] == second["methods"][name]["coverage"]


def test_several_files_are_one_trace(trace: Path, tmp_path: Path) -> None:
    write(fleet(15, 2.0).only([3]), tmp_path / "again.csv")
    out = tmp_path / "both.json"
    paths = (str(trace), str(tmp_path / "again.csv"))
    call_command("backtest", *paths, "--methods", "last", "--json", str(out), stdout=StringIO())
    assert json.loads(out.read_text())["models"] == 15


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "oracle"), "methods must be some of best, last"),
        (("--quantiles", "1.5"), "between 0 and 1"),
        (("--tau", "1"), "5 s or more"),
        (("--judge-from-day", "9"), "the trace ends on day"),
        (("--horizon", "0"), "more than zero"),
    ],
)
def test_what_cannot_be_judged_is_told_of_and_nothing_is_written(
    trace: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "out.json"
    with pytest.raises(CommandError, match=said):
        call_command("backtest", str(trace), *options, "--json", str(out))
    assert not out.exists()


def test_a_file_that_is_no_trace_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("when,who\n1,2\n")
    with pytest.raises(CommandError, match="none of the known forms"):
        call_command("backtest", str(tmp_path / "x.csv"))


def test_a_trace_that_begins_in_the_middle_of_things_is_no_surprise(tmp_path: Path) -> None:
    """Twenty models that never rest: twenty are held, not forty, though none was seen before the first row."""
    model, at = np.meshgrid(np.arange(20), np.arange(0.0, DAY_S, 240.0))
    names = tuple(f"m{place}" for place in range(20))
    write(Requests.of(names, model.ravel(), at.ravel()), tmp_path / "log.csv")
    result = judged(tmp_path / "log.csv", tmp_path, "--methods", "best,last", "--judge-from-day", "0.4")
    for name in ("best", "last"):
        assert result["methods"][name]["mean_reserve"]["0.99"] == pytest.approx(20, abs=0.5)


def test_of_no_judged_window_there_are_no_figures_and_no_nan(trace: Path, tmp_path: Path) -> None:
    """All judged time is an outage: JSON of a database knows no NaN."""
    html, out = tmp_path / "page.html", tmp_path / "out.json"
    options = ("--methods", "last", "--judge-from-day", "1", "--outage", f"{DAY_S:.0f}:{3 * DAY_S:.0f}")
    said = StringIO()
    call_command("backtest", str(trace), *options, "--json", str(out), "--html", str(html), stdout=said)

    def no_constant(text: str) -> None:
        raise AssertionError(text)

    result = json.loads(out.read_text(), parse_constant=no_constant)
    assert result["windows"] == 0 and result["mean_peak"] is None
    assert result["methods"]["last"]["slot_hours_used"] is None
    assert "mean peak not known" in said.getvalue() and "mean peak not known" in html.read_text()
