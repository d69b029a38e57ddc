"""Each test of the fleet begins with a process that remembers no report."""

from __future__ import annotations

import pytest

from controlplane.fleet import reports


@pytest.fixture(autouse=True)
def _fresh_process() -> None:
    reports.forget()
