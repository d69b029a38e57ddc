from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.telemetry import log_pieces, logs, process_log
from controlplane.telemetry.log_pieces import NotSent, Which
from controlplane.telemetry.logs import Source
from controlplane.telemetry.process_log import Giver, ProcessLog
from tests.telemetry.sending import Node
from workers.contract import LogChunk, LogWanted

LOG = Source(7, 3)


@pytest.fixture
def node(live_valkey: Any, tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, 7, 3)
    with made.reporting():
        yield made


def test_a_whole_log_comes_in_pieces_with_its_older_files_and_no_secret(node: Node) -> None:
    line = "INFO step {:06d} with node-secret and engine-secret, " + "x" * 900 + "\n"
    for part in range(3):
        node.write("".join(line.format(n) for n in range(part * 300, part * 300 + 300)))
        if part < 2:
            node.log.rotate(max_bytes=1)
    expected = "".join(line.format(n) for n in range(900)).replace("node-secret", "*" * 11)
    got = list(log_pieces.whole(LOG))
    assert "".join(got) == expected.replace("engine-secret", "*" * 13)
    assert len(got) > 3 and max(map(len, got)) <= log_pieces.STEP_BYTES
    newest = "".join(log_pieces.whole(LOG, limit=2000))
    assert expected.replace("engine-secret", "*" * 13).endswith(newest) and 900 < len(newest) <= 2000


def test_the_engine_before_the_present_one_has_its_log(node: Node) -> None:
    node.write("of the first\n")
    before = node.log.end()
    node.write("of the second, which died")
    began = node.log.end()
    node.write("\nof the third\n")
    node.record = msgspec.structs.replace(node.record, log_before=before, log_start=began)
    piece = log_pieces.fetch(LOG, Which(previous=True))
    assert (piece.offset, piece.text, piece.next_offset) == (before, "of the second, which died", began)


def test_the_last_seconds_of_a_log(node: Node) -> None:
    node.log.path.write_text("long ago\n")
    node.log.mark(1.0)
    node.write("now\n")
    assert log_pieces.fetch(LOG, Which(ago_s=60.0)).text == "now\n"


def test_an_agents_own_log_is_its_nodes(node: Node) -> None:
    node.own.path.write_text("2026-11-26 14:00:00,000 INFO workers.agent: generation 4: 1 replicas\n")
    assert "generation 4" in log_pieces.fetch(Source(7)).text


def test_two_who_ask_at_once_get_what_they_asked_for(node: Node) -> None:
    node.write("a\nb\n")
    follow = logs.want(LOG)
    first, second = log_pieces.fetch(LOG), log_pieces.fetch(LOG, limit=3)
    assert follow is None and (first.text, second.text) == ("a\nb\n", "\nb\n")


def test_who_does_not_answer_is_not_waited_for_long(live_valkey: Any) -> None:
    with pytest.raises(NotSent):
        log_pieces.fetch(LOG, wait_s=0.2)
    logs.keep(7, [LogChunk(partition=3, offset=0, text="late", id="unknown")])
    assert not live_valkey.keys("forebay:logs:piece:*")


def test_an_agent_that_knows_no_pieces_is_told_apart_from_an_answer(live_valkey: Any) -> None:
    logs.ask(7, "a1", LogWanted(partition=3, id="a1", limit=10), 5)
    logs.keep(7, [LogChunk(partition=3, offset=0, text="as it knows it\n")])
    assert logs.read(LOG).text == "" and logs.wanted(7)[0].id == "a1"


@pytest.fixture
def giver(live_valkey: Any) -> Iterator[Giver]:
    kept = ProcessLog({"the-secret-key"})
    kept.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("tests.process_log")
    logger.addHandler(kept)
    logger.propagate = False
    yield Giver("gateway@host:8001", "gateway", kept)
    logger.removeHandler(kept)
    logger.propagate = True


def test_a_process_of_ours_gives_its_log_to_who_looks(giver: Giver) -> None:
    say, source = logging.getLogger("tests.process_log").warning, Source(giver.name)
    say("opened with %s", "the-secret-key")
    giver.answer_once()
    assert logs.read(source).text == ""
    logs.want(source)
    giver.answer_once()
    first = logs.read(source)
    say("é")
    giver.answer_once()
    second = logs.read(source, first.next_offset)
    assert (first.text, second.text) == (f"WARNING opened with {'*' * 14}\n", "WARNING é\n")
    giver.beat(1000.0)
    assert [seen.name for seen in process_log.processes(1010.0)] == [giver.name]
    assert process_log.processes(1000.0 + process_log.GONE_AFTER_S + 1) == []


def test_a_process_keeps_its_newest_lines_only(giver: Giver) -> None:
    for number in range(400):
        logging.getLogger("tests.process_log").warning("%d %s", number, "x" * 4000)
    chunks = giver.kept.answer(LogWanted(partition=0, id="a", limit=process_log.ANSWER_BYTES))
    text = "".join(chunk.text for chunk in chunks)
    assert text.startswith("WARNING") and text.rstrip("x\n").endswith("399 ") and len(text) <= process_log.ANSWER_BYTES
    assert chunks[-1].offset + len(chunks[-1].text) == chunks[0].end
    assert giver.kept._size <= process_log.KEEP_BYTES
