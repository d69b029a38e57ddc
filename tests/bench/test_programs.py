"""Every measuring program is asked for in the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
PROGRAMS = sorted(path for path in BENCH.glob("[a-z]*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_has_a_quick_run_and_ends_with_a_result(program: Path) -> None:
    text = program.read_text()
    assert '"--quick"' in text
    assert "RESULT" in text
