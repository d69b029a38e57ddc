"""Profiles from a terminal."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.cli.conftest import Terminal
from tests.planning import profile_tables as tables

pytestmark = pytest.mark.django_db


def test_a_table_is_imported_listed_shown_and_forgotten(operator: Terminal, tmp_path: Path) -> None:
    assert "There are none" in operator.ok("profile", "list")
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(tables.splitwise().encode()))
    shown = operator.ok("profile", "import", str(file), "--model", "llama=llama-70b", "--gpu", "h100=NVIDIA H100")
    assert "llama-70b" in shown and "NVIDIA H100" in shown and "imported" in shown
    assert "1 of an earlier import" in operator.ok(
        "profile", "import", str(file), "--model", "llama=llama-70b", "--gpu", "h100=NVIDIA H100"
    )
    [row] = operator.json("profile", "list", "--model", "llama-70b")
    told = operator.ok("profile", "show", str(row["id"]))
    assert "The smallest batch that fills it" in told and "table.csv.gz" in told and "SEQUENCES" in told
    assert f"Profile {row['id']} is forgotten" in operator.ok("profile", "delete", str(row["id"]))
    assert "no profile" in operator.fails(2, "profile", "show", str(row["id"]))


def test_what_is_no_table_is_refused_in_words(operator: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b\n")
    assert "Nothing was imported" in operator.fails(1, "profile", "import", str(file))
    assert "OLD=NEW" in operator.fails(2, "profile", "import", str(file), "--model", "x")
    file.write_bytes(b"\x1f\x8bnope")
    assert "cannot be read" in operator.fails(2, "profile", "import", str(file))
