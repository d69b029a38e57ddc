"""Figures on their way to Valkey."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.telemetry import latest, valkey
from controlplane.telemetry.latest import Latest
from controlplane.telemetry.outbox import Outbox

NODES = (1, 2, 3)


def figures(node: int, seen: float) -> Latest:
    return Latest(node=node, seen=seen, period_s=1.0, skew_s=0.0, host=None, devices={}, engines={}, process_bytes={})


def test_the_newest_of_each_node_goes_in_one_round(live_valkey: Any) -> None:
    outbox = Outbox()
    for seen in (1.0, 2.0):
        for node in NODES:
            outbox.put(figures(node, seen))
    outbox.flush()
    assert {node: one.seen for node, one in latest.read(NODES).items()} == dict.fromkeys(NODES, 2.0)


def test_what_valkey_could_not_take_waits_and_gives_way_to_what_is_newer(
    live_valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox()
    outbox.put(figures(1, 1.0))
    outbox.put(figures(2, 1.0))
    with monkeypatch.context() as away:
        away.setattr("django.conf.settings.REDIS_URL", "redis://127.0.0.1:1/0")
        valkey.reset()
        outbox.flush()
    valkey.reset()
    outbox.put(figures(2, 2.0))
    outbox.flush()
    assert {node: one.seen for node, one in latest.read((1, 2)).items()} == {1: 1.0, 2: 2.0}
