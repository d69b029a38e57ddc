from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.log_lines import LogLevel, chosen, last_level, level_of, lines

D, I, W, E = LogLevel  # noqa: E741


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("INFO 11-26 14:00:00 [core.py:77] Initializing a V1 LLM engine", I),
        ("(EngineCore_DP0 pid=4711) WARNING 11-26 14:00:00 [nixl.py:9] no peer answers", W),
        ("(APIServer pid=1) INFO:     127.0.0.1:5 - \"GET /health HTTP/1.1\" 200 OK", I),
        ("INFO:     Started server process [42]", I),
        ("2026-11-26T14:00:00.000000Z [warning  ] valkey unreachable [controlplane.telemetry.valkey] error='x'", W),
        ('{"error": "ERROR", "level": "info", "event": "the gateway listens"}', I),
        ("2026-11-26 14:00:00,123 ERROR workers.agent: tick failed", E),
        ("[2026-11-26 14:00:00,123: DEBUG/MainProcess] beat", D),
        ("host-1:4711:4712 [0] NCCL WARN socketProgress: Connection closed", W),
        ("W1126 14:00:00.123456 99 agent.cc:12] slow", W),
        ("[E1126 14:00:00.1 ProcessGroupNCCL.cpp:5] watchdog", E),
        ("\x1b[31mERROR\x1b[0m 11-26 14:00:00 [engine.py:1] out of memory", E),
        ("CRITICAL: gone", E),
        ("Traceback (most recent call last):", E),
        ("[rank0]: torch.OutOfMemoryError: CUDA out of memory.", E),
        ("/x/y.py:12: UserWarning: do not", W),
        ("  File \"/x.py\", line 3, in main", None),
        ("Loading safetensors checkpoint shards:  25%", None),
        ("[forebay] 2026-11-26T14:00:00+00:00 starting chat as decode, generation 4", None),
        ("informational errors are no ERRORS here", None),
    ],
)  # fmt: skip
def test_a_line_says_how_grave_it_is(line: str, level: LogLevel | None) -> None:
    assert level_of(line) is level


def test_a_traceback_belongs_to_the_line_before_it() -> None:
    text = 'INFO a\nERROR b\nTraceback (most recent call last):\n  File "x"\nValueError: é\nINFO c\n'
    found = list(lines(text, 100))
    assert [line.level for line in found] == [I, E, E, E, E, I]
    assert found[5].offset == 100 + len(text.encode()) - len("INFO c\n") and found[5].text == "INFO c"
    assert [line.text for line in chosen(found, level=E)] == text.splitlines()[1:5]
    assert [line.text for line in chosen(found, search="INFO C")] == ["INFO c"]


def test_what_came_before_says_what_a_traceback_belongs_to() -> None:
    assert last_level("ERROR x\n  File\n") is E and last_level("nothing\n") is I
    (line,) = lines("  File\n", 0, last_level("ERROR x\n"))
    assert line.level is E


@given(st.text(alphabet="aE\n\ré\u2028", max_size=60), st.integers(0, 1000))
def test_no_line_is_lost_whatever_is_written(text: str, offset: int) -> None:
    found = list(lines(text, offset))
    assert (
        "\n".join(line.text.rstrip("\r") for line in found)
        == "\n".join(part.rstrip("\r") for part in text.removesuffix("\n").split("\n"))
        or not text
    )
    assert all(line.offset >= offset for line in found)
