"""Who may set each argument that vLLM has, written down, so that one is opened or closed by decision alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from controlplane.domain.engine_args import OWNED, validate
from controlplane.domain.trusted_args import TRUSTED, trusted_flag
from tests.e2e.stack import ENGINE_PYTHON

TABLE = Path(__file__).parent.parent / "data" / "vllm_0_32_arguments.txt"
OF_OTHER_VERSIONS = {"--device", "--model-tag", "--version"}  # older or newer vLLM has them
LIST = """
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
print(*sorted(n for a in parser._actions for n in a.option_strings if n.startswith("--")), sep="\\n")
"""


def table() -> dict[str, str]:
    rows = [line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return {flag: who for who, flag in rows}


@pytest.mark.parametrize(("flag", "who"), table().items())
def test_each_is_whose_the_table_says(flag: str, who: str) -> None:
    found = "nobody" if validate([flag, "x"]) else "admin" if trusted_flag(flag) else "operator"

    assert found == who


def test_nothing_is_ruled_that_no_engine_has() -> None:
    assert (set(OWNED) | set(TRUSTED)) - set(table()) == OF_OTHER_VERSIONS


@pytest.mark.e2e
@pytest.mark.skipif(not ENGINE_PYTHON.exists(), reason=f"no vLLM at {ENGINE_PYTHON}")
def test_the_table_has_each_argument_of_the_installed_engine() -> None:
    """One that a new version brings is open to operators until somebody has looked at it and put it into the table."""
    told = subprocess.run([ENGINE_PYTHON, "-c", LIST], capture_output=True, text=True, timeout=300, check=True)
    here = {name for name in told.stdout.split() if not name.startswith("--no-")}

    assert here - set(table()) == set()
