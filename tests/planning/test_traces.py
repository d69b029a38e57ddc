"""Traces that people have: by their header, gzipped or not, and told of where they are wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from controlplane.planning.traces import TraceError, read, write


def saved(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_request_log_is_kept_as_bursts(tmp_path: Path) -> None:
    path = saved(tmp_path / "log.csv", "t_s,model,duration_s", "0,a,1", "3,a,4", "50,a,1", "2,b,0.5")
    found = read(path).requests
    assert found.models == ("a", "b")
    assert found.at.tolist() == [0, 2, 50]
    assert found.until.tolist() == [7, 2.5, 51]
    assert found.number.tolist() == [2, 1, 1]


def test_more_columns_and_lengths_do_no_harm(tmp_path: Path) -> None:
    path = saved(tmp_path / "log.csv", "t_s,model,who,duration_s", "0,a,me,1")
    found = read(path).requests
    assert found.until.tolist() == [1] and found.tokens is None


TOLD = "t_s,model,duration_s,input_tokens,output_tokens"


def test_tokens_are_kept_by_the_minute(tmp_path: Path) -> None:
    rows = ("0,a,1,300,20", "4,a,58,100,", "61,a,1,7,3", "62,a,1,,", "9,b,1,,")
    found = read(saved(tmp_path / "log.csv", TOLD, *rows)).requests
    assert found.tokens is not None
    assert found.at.tolist() == [0, 9, 61] and found.number.tolist() == [2, 1, 2]
    assert found.tokens.tolist() == [[400, 20], [0, 0], [7, 3]]
    assert found.only([0]).within(60, 100).tokens.tolist() == [[7, 3]]  # type: ignore[union-attr]


def test_tokens_that_are_written_are_read_again(tmp_path: Path) -> None:
    log = read(saved(tmp_path / "log.csv", TOLD, "0,a,90,300,20", "70,a,1,5,6", "2,b,1,1,2")).requests
    write(log, tmp_path / "out.csv.gz")
    again = read(tmp_path / "out.csv.gz").requests
    assert again.tokens is not None and log.tokens is not None
    assert (again.at.tolist(), again.tokens.tolist()) == (log.at.tolist(), log.tokens.tolist())


@pytest.mark.parametrize("cells", ["-1,2", "1.5,2", "many,2", "nan,2", "1,1e13", "1,inf"])
def test_tokens_that_are_no_counts_are_told_of_with_their_line(tmp_path: Path, cells: str) -> None:
    with pytest.raises(TraceError, match=r"line 3: input_tokens, output_tokens must be whole numbers"):
        read(saved(tmp_path / "log.csv", TOLD, "0,a,1,,", f"0,a,1,{cells}"))


def test_json_lines_are_read_by_the_same_names(tmp_path: Path) -> None:
    rows = [{"t_s": 5, "model": "a", "duration_s": 2}, {"t_s": 90, "model": "b", "duration_s": 1}]
    found = read(saved(tmp_path / "log.jsonl", *map(json.dumps, rows))).requests
    assert (found.models, found.at.tolist()) == (("a", "b"), [5, 90])


def test_a_function_invocation_ends_at_its_timestamp(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.csv", "app,func,end_timestamp,duration", "x,f,100,30", "x,g,100,1")
    found = read(path).requests
    assert found.models == ("x/f", "x/g")
    assert sorted(found.at.tolist()) == [70, 99]


def test_windows_of_counts_keep_every_request_and_stay_in_their_window(tmp_path: Path) -> None:
    path = tmp_path / "w.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("client,t_s,requests,cv,iat_dist,p1,p2\nc/0,0,40,2.0,Gamma,0.3,1\nc/0,1200,9000,8,Weibull,0.4,1\n")
    trace = read(path, seed=3)
    found = trace.requests
    first = found.at < 600
    assert found.number[first].sum() == 40
    assert abs(found.number[~first].sum() - 9000) < 20
    assert (found.at[~first] >= 1200).all() and (found.until <= 1800).all()
    assert "seed 3" in trace.note and "fewer than 10" in trace.note
    np.testing.assert_array_equal(found.at, read(path, seed=3).requests.at)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    log = read(saved(tmp_path / "log.csv", "t_s,model,duration_s", "0,a,1", "50,a,1.25", '2,"b, c",0.5')).requests
    write(log, tmp_path / "out.csv.gz")
    again = read(tmp_path / "out.csv.gz").requests
    assert sorted(again.models) == sorted(log.models)
    assert (again.at.tolist(), again.until.tolist()) == (log.at.tolist(), log.until.tolist())


def test_a_trace_of_no_rows_has_no_models(tmp_path: Path) -> None:
    assert read(saved(tmp_path / "log.csv", "t_s,model,duration_s")).requests.models == ()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("t_s,model,duration_s", "0,a,1", "x,a,1"), "line 3"),
        (("t_s,model,duration_s", "nan,a,1"), "line 2"),
        (("t_s,model,duration_s", "5,a"), "line 2"),
        (("when,who", "1,2"), "none of the known forms"),
        (("",), "none of the known forms"),
        (('{"t_s": 1, "model": "a", "duration_s": 1}', "{oops"), "log.csv"),
    ],
)
def test_a_file_that_is_no_trace_is_told_of_with_its_line(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(TraceError, match=said):
        read(saved(tmp_path / "log.csv", *lines))


def test_a_missing_or_torn_file_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere\.csv"):
        read(tmp_path / "nowhere.csv")
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(b"t_s,model,duration_s\n" + b"1,a,1\n" * 5000)[:-20])
    with pytest.raises(TraceError, match=r"torn\.csv"):
        read(torn)


def test_reading_is_told_of_to_the_end(tmp_path: Path) -> None:
    path = saved(tmp_path / "log.csv", "t_s,model,duration_s", *(f"{at},a,1" for at in range(12_000)))
    told: list[tuple[int, int]] = []
    read(path, on_bytes=lambda done, of: told.append((done, of)))
    assert len(told) >= 3 and told[-1][0] == told[-1][1] == path.stat().st_size
