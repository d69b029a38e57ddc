"""Where programs that tests and benches start keep what Python compiles, if they may not keep it beside the source."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "build" / "bytecode"


def keep(environ: dict[str, str]) -> None:
    """In this folder, in place of PYTHONDONTWRITEBYTECODE: else each of a dozen processes compiles all anew, for
    seconds."""
    if environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        environ["PYTHONPYCACHEPREFIX"] = str(FOLDER)
