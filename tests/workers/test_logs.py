from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.logs import Log, Logs, file_name
from workers.redaction import of_environment, of_url, redact


def read_on(log: Log, offset: int) -> tuple[int, str]:
    start, text = log.read(offset, ())
    return start + len(text.encode()), text


def test_a_reader_that_asks_on_misses_nothing_and_sees_nothing_twice(tmp_path):
    log = Log(tmp_path / "a.log")
    with log.path.open("ab", buffering=0) as engine:
        engine.write(b"one\ntwo")
        offset, first = read_on(log, 0)
        engine.write(b" ends\nthree\n")
        offset, second = read_on(log, offset)
    assert first == "one\n" and second == "two ends\nthree\n"
    assert read_on(log, offset) == (offset, "")


def test_the_tail_begins_with_a_line(tmp_path):
    log = Log(tmp_path / "a.log")
    log.path.write_text("".join(f"line {n}\n" for n in range(10000)))
    start, text = log.read(-1, ())
    assert text.startswith("line ") and text.endswith("line 9999\n") and start + len(text) == log.end()


def test_rotation_under_a_running_writer_keeps_offsets_going_on(tmp_path):
    log = Log(tmp_path / "a.log")
    code = "import time\nfor n in range(60):\n  print('line', n, flush=True); time.sleep(.02)"
    with log.path.open("ab") as file:
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=file)
    offset, text, rotated = 0, "", 0
    while writer.poll() is None or log.end() > offset:
        before = offset
        offset, more = read_on(log, offset)
        assert offset >= before
        text += more
        if rotated < 3:
            rotated += log.rotate(max_bytes=60)
        time.sleep(0.01)
    assert rotated == 3 and text.endswith("line 59\n")
    lines = text.splitlines()
    assert len(lines) == len(set(lines)) and lines == sorted(lines, key=lambda line: int(line.split()[1]))
    assert Log(log.path).end() == log.end()  # another process goes on at the same offsets


def test_only_so_many_old_files_are_kept(tmp_path):
    log = Log(tmp_path / "a.log")
    for n in range(6):
        log.path.write_bytes(b"%d" % n * 100)
        assert log.rotate(max_bytes=100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.base", "a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert (tmp_path / "a.log.1").read_bytes() == b"5" * 100 and log.base == 600


def test_older_files_are_read_on_from_and_what_is_gone_is_passed_over(tmp_path):
    log = Log(tmp_path / "a.log")
    for n in range(5):
        log.path.write_text(f"old {n}\n" * 10)
        log.rotate(max_bytes=1)
    log.path.write_text("new\n")
    assert log.first() == 120 and log.end() == 304
    assert log.read(3, ()) == (120, "old 2\n" * 10 + "old 3\n" * 10 + "old 4\n" * 10 + "new\n")
    assert log.read(295, ()) == (295, "ld 4\nnew\n")
    assert log.read(9999, ()) == (304, "")


def test_an_unfinished_line_waits_for_its_end_and_a_finished_log_does_not(tmp_path):
    log = Log(tmp_path / "a.log")
    log.path.write_text("half a li")
    assert log.read(0, ()) == (0, "")
    assert log.read(0, (), finished=True) == (0, "half a li")
    log.path.write_text("Loading 10%\rLoading 2")
    assert log.read(0, ()) == (0, "Loading 10%\r")


@pytest.mark.parametrize("secret", ["hf_" + "a" * 40, "Bearer " + "b" * 900, "the-engines-own-key", "ключ-секрет"])
def test_a_secret_that_a_cut_divides_is_starred_out_on_both_sides(tmp_path, secret):
    """One line without end, as a request that is logged: there is no line end to cut at."""
    log = Log(tmp_path / "a.log")
    log.path.write_text(f"{'x ' * 40}{secret} {'y ' * 40}\n")
    at, pieces = 0, []
    while at < log.end():
        start, text = log.read(at, {"the-engines-own-key", "ключ-секрет"}, limit=37)
        assert start == at and text
        at += len(text.encode())
        pieces.append(text)
    hidden = secret.removeprefix("Bearer ")
    assert hidden[:4] not in "".join(pieces) and f"{'*' * len(hidden.encode())} y" in "".join(pieces)


def test_a_secret_that_is_written_in_two_goes_is_never_shown(tmp_path):
    log = Log(tmp_path / "a.log")
    with log.path.open("a") as engine:
        engine.write("started\nusing hf_abcdef")
        engine.flush()
        start, first = log.read(0, ())
        engine.write("ghijklmnop as token\n")
        engine.flush()
        _, second = log.read(start + len(first), ())
    assert (first, second) == ("started\n", "using ******************* as token\n")


def test_a_moment_is_found_in_a_log(tmp_path):
    log = Log(tmp_path / "a.log")
    for second in range(0, 60, 10):
        log.mark(float(second))
        with log.path.open("a") as engine:
            engine.write(f"at {second:02d}\n")
    log.mark(60.0)
    assert log.read(log.at(30.5), ())[1].startswith("at 30\n")
    assert log.at(-5.0) == 0 and log.at(99.0) == log.end()


def test_where_the_end_only_points_above_the_lines_that_say_what_was_wrong_come_first(tmp_path):
    log = Log(tmp_path / "vllm.log")
    frames = [f'  File "/site-packages/vllm/step{number}.py", line {number}, in run' for number in range(60)]
    why = "torch.OutOfMemoryError: CUDA out of memory of hunter2-key. Tried to allocate 2.00 GiB."
    its_own = [f"(EngineCore pid=561) ERROR 11-28 03:59:24 [core.py:1510] {why}", "Process EngineCore:", *frames, why]
    said = (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
    )
    log.path.write_text("\n".join([*its_own, *frames, "    raise RuntimeError(", said]) + "\n")
    told = log.last_lines(0, {"hunter2-key"}).splitlines()
    assert told[1] == why.replace("hunter2-key", "***********") and told[2] == "..." and told[-1] == said
    assert len(told) == 3 + 40
    log.path.write_text("\n".join([*its_own, *frames]) + "\n")
    assert len(log.last_lines(0, set()).splitlines()) == 40, "an end that says it by itself"


def test_the_last_lines_are_those_of_the_last_start(tmp_path):
    log = Log(tmp_path / "a.log")
    log.path.write_text("earlier\n")
    since = log.end()
    with log.path.open("a") as file:
        file.write("Traceback\nboom hunter2-key\n")
    assert log.last_lines(since, {"hunter2-key"}) == "Traceback\nboom ***********"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdefgh12345",
        "token hf_abcdefghijklmnop",
        "fb-0123456789abcdef",
        "fbe-0123456789abcdef",
        "fbj-0123456789abcdef",
        "'api_key': 'abcdefghijk'",
        "redis://node-1:pass-word@host/0",
        "--api-key=abcdefghijk",
        "--api-key abcdefghijk",
        "non-default args: {'api_key': ['abcdefghijk'], 'port': 1}",
        "Authorization: Basic abcdefghijk=",
        "{'authorization': 'Token abcdefghijk'}",
        "x-api-key: abcdefghijk",
        "HF_TOKEN=abcdefghijk python -m vllm",
        "AWS_SECRET_ACCESS_KEY=abcdefghijk",
        'password: "abcdefghijk"',
        "access_token=abcdefghijk&x=1",
        "pushed with ghp_abcdefghijklmnop",
        "jwt eyJabcdefghi.abcdefghijkl.abcdefghijkl",
    ],
)
def test_what_looks_like_a_secret_is_starred_out(text):
    hidden = redact(text, ())
    assert "*" in hidden and len(hidden) == len(text)
    assert not any(secret in hidden for secret in ("abcdefgh", "0123456789", "pass-word"))


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=4096 eos_token='<|end_of_text|>' num_tokens: 123456",
        "Avg prompt throughput: 812.3 tokens/s, disk-usage-of-the-models 12",
        "KeyError: 'missing-entry-in-table'",
        "INFO 11-26 14:00:00 [loggers.py:123] Engine 000: GPU KV cache usage: 12.0%",
        "http://node-1:18100/v1/models",
    ],
)
def test_what_is_no_secret_stays_readable(text):
    assert redact(text, ()) == text


@pytest.mark.parametrize("unit", ["A", "password: ", "eyJ-", "hf_", "Bearer ", "://a", "KEY=", "s", " "])
def test_no_text_makes_redaction_slow(unit):
    began = time.perf_counter()
    redact(unit * (60_000 // len(unit)), ())
    assert time.perf_counter() - began < 2.0


def test_the_environment_and_addresses_tell_what_is_secret():
    environ = {"HF_TOKEN": "the-token", "PATH": "/usr/bin", "MY_DB_PASSWORD": "hunter22", "API_KEY": "no"}
    assert of_environment(environ) == {"the-token", "hunter22"}
    assert of_url("redis://node-1:pass%2Bword@host/0") == {"pass%2Bword", "pass+word"}
    assert of_url("redis://host/0") == frozenset()


@given(st.binary(max_size=400), st.integers(0, 400))
def test_whatever_an_engine_writes_offsets_stay_right(tmp_path_factory, data, offset):
    log = Log(tmp_path_factory.mktemp("log") / "a.log")
    log.path.write_bytes(data)
    start, text = log.read(min(offset, len(data)), {"é", "ab"})
    taken = data[start : start + len(text.encode())]
    assert len(text.encode()) == len(taken)


def test_a_partitions_name_cannot_lead_out_of_the_folder():
    assert file_name("../../etc/passwd", 5) == "-etc-passwd-5.log" and file_name("p0", 12) == "p0-12.log"


def test_logs_nobody_wrote_to_for_long_are_removed(tmp_path):
    logs = Logs(tmp_path)
    for name in ("kept-1.log", "gone-2.log", "gone-2.log.1", "gone-2.base"):
        (tmp_path / name).write_text("x")
    logs.prune(["kept-1.log"], older_than_s=-1)
    assert [p.name for p in tmp_path.iterdir()] == ["kept-1.log"]
    assert logs.of("kept-1.log") is logs.of("kept-1.log")


def test_on_a_full_disk_the_log_is_given_up_and_not_the_disk(tmp_path, monkeypatch):
    """Without room for a copy the file would grow on, and each try would push an older copy out."""
    log = Log(tmp_path / "a.log")
    log.path.write_text("kept\n" * 20)
    log.rotate(max_bytes=100)
    log.path.write_text("lost\n" * 20)

    def no_room(_source, target):
        target.write_text("half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workers.logs.shutil.copyfile", no_room)
    assert log.rotate(max_bytes=100)
    assert log.path.read_bytes() == b"" and log.end() == 200
    assert (tmp_path / "a.log.1").read_text() == "kept\n" * 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.base", "a.log", "a.log.1"]
