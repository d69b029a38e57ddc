"""No test that touches the database is left out of the run on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from tests.suites import DATABASE_TESTS

ROOT = Path(__file__).resolve().parent.parent
# What the terminal asks for is what tests/api asks for; a browser's tests have a server of their own.
ELSEWHERE = {"tests/cli", "tests/browser"}


def test_every_folder_with_database_tests_is_run_on_postgresql() -> None:
    folders = {
        f"tests/{path.relative_to(ROOT / 'tests').parts[0]}"
        for path in (ROOT / "tests").glob("*/test_*.py")
        if "django_db" in path.read_text() or "db: None" in path.read_text()
    }
    assert folders - ELSEWHERE <= set(DATABASE_TESTS)
