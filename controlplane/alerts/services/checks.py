"""What the services of this app refuse in the same words."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.domain.problems import Problem

MOST_LABELS = 20


def labels_problems(labels: Mapping[str, str]) -> list[Problem]:
    sane = all(
        _plain(key) and _plain(value) and 0 < len(key) <= 63 and len(value) <= 255 for key, value in labels.items()
    )
    if sane and len(labels) <= MOST_LABELS:
        return []
    text = f"Labels are at most {MOST_LABELS} names of up to 63 characters, each with a value of up to 255."
    return [Problem("labels", text, "Write them as name=value; node and deployment are names too.")]


def text_problem(code: str, text: str, most: int, what: str) -> list[Problem]:
    if text.strip() and len(text) <= most and _plain(text):
        return []
    return [Problem(code, f"{what} is 1 to {most} plain characters.", "Say it in a few words.")]


def _plain(text: object) -> bool:
    """What PostgreSQL can keep: no NUL, and no half of a surrogate pair, which JSON may carry and UTF-8 may not."""
    return isinstance(text, str) and not any(letter == "\x00" or "\ud800" <= letter <= "\udfff" for letter in text)
