"""docs/metrics.md, the dashboard and the alert rules speak of the metrics that there are, and of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.telemetry import valkey as telemetry_valkey
from tests import expositions
from tests.expositions import Family

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROW = re.compile(r"^\| `(forebay_\w+)` \| (\w+) \| ([\w, ]*) \| (.+) \|$", re.MULTILINE)
pytestmark = pytest.mark.django_db


@pytest.fixture
def exposed(valkey: Any, settings: Any) -> Iterator[dict[str, Family]]:
    """All metrics of all processes, by name."""
    settings.REDIS_URL = valkey.url
    telemetry_valkey.reset()
    yield expositions.control_plane() | expositions.gateway() | expositions.agent()
    telemetry_valkey.reset()


def test_the_page_lists_every_metric_with_its_type_and_labels_and_no_other(exposed: dict[str, Family]) -> None:
    rows = ROW.findall((DOCS / "metrics.md").read_text())
    told = {name: (kind, frozenset(filter(None, labels.split(", ")))) for name, kind, labels, _ in rows}
    assert len(rows) == len(told), "a metric is listed twice"
    assert told == {family.name: (family.type, family.labels) for family in exposed.values()}


def test_every_metric_has_a_help_and_a_sample_to_learn_its_labels_from(exposed: dict[str, Family]) -> None:
    assert [family.name for family in exposed.values() if not family.help or not family.samples] == []
