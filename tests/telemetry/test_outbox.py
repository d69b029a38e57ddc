"""Figures on their way to Valkey."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.telemetry import latest, valkey
from controlplane.telemetry.ingest import Ingest
from controlplane.telemetry.outbox import Outbox
from tests.telemetry.reports import T0, report

NODES = (1, 2, 3)


def test_the_newest_of_each_node_goes_in_one_round(live_valkey: Any, ingest: Ingest) -> None:
    for seq in (1, 2):
        for node in NODES:
            ingest.put(node, report(node, seq), T0 + seq)
    Outbox(ingest.pop_latest).flush()
    assert {node: one.seen for node, one in latest.read(NODES).items()} == dict.fromkeys(NODES, T0 + 2)


def test_what_valkey_could_not_take_waits_and_gives_way_to_what_is_newer(
    live_valkey: Any, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(ingest.pop_latest)
    ingest.put(1, report(1, 1), T0 + 1)
    ingest.put(2, report(2, 1), T0 + 1)
    with monkeypatch.context() as away:
        away.setattr("django.conf.settings.REDIS_URL", "redis://127.0.0.1:1/0")
        valkey.reset()
        outbox.flush()
    valkey.reset()
    ingest.put(2, report(2, 2), T0 + 2)
    outbox.flush()
    assert {node: one.seen for node, one in latest.read((1, 2)).items()} == {1: T0 + 1, 2: T0 + 2}
