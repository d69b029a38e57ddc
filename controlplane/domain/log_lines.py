"""What a line of a log is: how grave, and whether somebody searches for it. Knows the words of vLLM, Python's logging,
structlog, uvicorn, Celery, glog and NCCL; never reads a clock, never guesses a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

LOOKED_AT = 240  # characters of a line in which its level stands, if anywhere
LONGEST_SEARCH = 200


class LogLevel(IntEnum):
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


LEVELS = tuple(level.name.lower() for level in LogLevel)
_WORDS = {
    "TRACE": LogLevel.DEBUG, "DEBUG": LogLevel.DEBUG, "INFO": LogLevel.INFO, "NOTICE": LogLevel.INFO,
    "WARN": LogLevel.WARNING, "WARNING": LogLevel.WARNING, "ERROR": LogLevel.ERROR, "CRITICAL": LogLevel.ERROR,
    "FATAL": LogLevel.ERROR, "EXCEPTION": LogLevel.ERROR,
}  # fmt: skip
_LETTERS = {"D": LogLevel.DEBUG, "I": LogLevel.INFO, "W": LogLevel.WARNING, "E": LogLevel.ERROR, "F": LogLevel.ERROR}
_WORD = re.compile(r"(?<![\w/.-])(TRACE|DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL)(?=[\s:/\]|,]|$)")
_BRACKETED = re.compile(r"\[(trace|debug|info|notice|warning|warn|error|critical|exception|fatal)\s*\]")
_JSON = re.compile(r"\"(?:level|levelname|severity)\"\s?:\s?\"(\w{4,9})\"")
_GLOG = re.compile(r"^\[?([DIWEF])\d{4} \d\d:\d\d:\d\d")
_COLOURS = re.compile(r"\x1b\[[0-9;]{0,20}m")
_PREFIX = re.compile(r"^(?:\[rank\d{1,5}\]:?|\([\w.-]{1,40}(?: pid=\d{1,9})?\))\s")  # who writes, before what
_RAISED = re.compile(
    r"^(?:Traceback \(most recent call last\)|[A-Za-z_][\w.]{0,100}(?:Error|Exception|Interrupt)(?::|$))"
)
_WARNED = re.compile(r":\d{1,7}: [A-Z]\w{0,60}Warning: ")


@dataclass(frozen=True, slots=True)
class Line:
    """`offset`: the byte of the log at which it starts. `text` has no line end."""

    offset: int
    level: LogLevel
    text: str


def level_of(text: str) -> LogLevel | None:
    """What the line says of itself; None where it says nothing, as the lines of a traceback."""
    head = _COLOURS.sub("", text[:LOOKED_AT])
    if found := _JSON.search(head) if head.lstrip().startswith("{") else None:
        return _WORDS.get(found[1].upper())
    if found := _GLOG.search(head):
        return _LETTERS[found[1]]
    if found := _BRACKETED.search(head) or _WORD.search(head):
        return _WORDS[found[1].upper()]
    rest = _PREFIX.sub("", head)
    if _RAISED.match(rest):
        return LogLevel.ERROR
    return LogLevel.WARNING if _WARNED.search(head) else None


def lines(text: str, offset: int, before: LogLevel = LogLevel.INFO) -> Iterator[Line]:
    """The lines of `text`, which starts at byte `offset`. One that says no level has that of the line before it, as a
    traceback does; `before` is the level of the line before the first."""
    level, at = before, offset
    for line in _split(text):
        level = level_of(line) or level
        yield Line(at, level, line.rstrip("\r\n"))
        at += len(line.encode())


def chosen(found: Iterable[Line], *, search: str = "", level: LogLevel = LogLevel.DEBUG) -> Iterator[Line]:
    """Those at least as grave as `level` that contain `search`, whatever the case. No pattern: what people type must
    not be able to keep the server busy."""
    wanted = search.casefold()
    return (line for line in found if line.level >= level and (not wanted or wanted in line.text.casefold()))


def last_level(text: str) -> LogLevel:
    """Of the last line that says one: what a line without one, that comes next, belongs to."""
    for line in reversed(_split(text)):
        if (level := level_of(line)) is not None:
            return level
    return LogLevel.INFO


def _split(text: str) -> list[str]:
    """At line feeds alone: other ends, such as a progress bar's returns, stay within their line."""
    return [line for line in re.split(r"(?<=\n)", text) if line]
