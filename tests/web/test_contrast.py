"""Text reads on every surface it is used on: WCAG AA, 4.5 to 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOKENS = Path(__file__).resolve().parents[2] / "static" / "css" / "tokens.css"
INKS = ("text", "muted", "faint", "accent", "ok", "warn", "bad", "danger")
SURFACES = ("bg", "panel", "raised", "sunken")


def tokens(theme: str) -> dict[str, str]:
    blocks = re.findall(r"\{([^}]*)\}", TOKENS.read_text())
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", blocks[0 if theme == "dark" else 1]))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("ink", INKS)
def test_text_reads_on_every_surface(theme: str, surface: str, ink: str) -> None:
    colours = tokens(theme)
    assert contrast(colours[ink], colours[surface]) >= 4.5


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(
    ("ink", "surface"),
    [
        ("accent-ink", "accent"),
        ("role-ink", "prefill"),
        ("role-ink", "decode"),
        ("role-ink", "aggregated"),
        ("muted", "unknown"),
    ],
)
def test_ink_reads_on_its_colour(theme: str, ink: str, surface: str) -> None:
    colours = tokens(theme)
    assert contrast(colours[ink], colours[surface]) >= 4.5
