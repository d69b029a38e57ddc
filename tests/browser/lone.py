"""A site without a gateway, for pages that need none: it would try the engines, and those that are feigned fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.running import Running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("forebay") / "home")
    try:
        made.start(gateway=False)
        yield made
    finally:
        made.stop()
