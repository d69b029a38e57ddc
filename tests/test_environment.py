"""What settings make of environment variables: a word that means nothing is refused, and the refusal names it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.environment import flag, number, whole

NAME = "FOREBAY_OF_THIS_TEST"


@pytest.mark.parametrize(("word", "meant"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False)])
def test_a_switch_is_said_in_several_words(word: str, meant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, word)
    assert flag(NAME, not meant) is meant


def test_what_is_not_set_is_as_by_default() -> None:
    assert (flag(NAME, True), whole(NAME, 3), number(NAME, 0.5)) == (True, 3, 0.5)


def test_a_word_that_is_neither_yes_nor_no_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "maybe")
    with pytest.raises(ValueError, match=f"{NAME} is 'maybe'; use 1 or 0"):
        flag(NAME, True)


@pytest.mark.parametrize("word", ["", "ten", "1.5", "nan"])
def test_what_is_no_whole_number_is_refused(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, word)
    with pytest.raises(ValueError, match=f"{NAME} is {re.escape(repr(word))}; use a whole number"):
        whole(NAME, 1)


@pytest.mark.parametrize("word", ["", "ten", "nan", "inf"])
def test_what_is_no_number_is_refused(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, word)
    with pytest.raises(ValueError, match=f"{NAME} is {re.escape(repr(word))}; use a number"):
        number(NAME, 1)


def test_too_little_is_refused_with_the_least_that_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "0")
    with pytest.raises(ValueError, match="use 1 or more"):
        whole(NAME, 10, least=1)
    with pytest.raises(ValueError, match=r"use 0\.1 or more"):
        number(NAME, 1.0, least=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("FOREBAY_SAMPLE_EVERY_S", "0"), ("FOREBAY_REPORT_PERIOD_S", "nan"), ("FOREBAY_POOL_PREDICT", "maybe")],
)
def test_nothing_starts_with_a_setting_that_means_nothing(name: str, value: str, tmp_path: Path) -> None:
    environ = os.environ | {name: value, "FOREBAY_HOME": str(tmp_path)}
    command = [sys.executable, "-c", "import controlplane.settings"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode
    assert name in done.stderr.splitlines()[-1]
