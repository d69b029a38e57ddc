"""Whether this host's agent still knows where web process and broker are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.management import local_agent, machine

HERE = {"url": "http://127.0.0.1:8000", "address": "127.0.0.1", "broker_url": "redis://node-1:word@127.0.0.1:8002/0"}


@pytest.mark.parametrize(
    ("kept", "ports", "known"),
    [
        (HERE, {}, True),
        (HERE, {"FOREBAY_WEB_PORT": "8080"}, False),
        (HERE | {"broker_url": "redis://node-1:word@127.0.0.1:8003/0"}, {}, False),
        (HERE | {"broker_url": ""}, {}, True),
        (HERE | {"address": "192.0.2.7"}, {}, False),  # as when FOREBAY_HOST=0.0.0.0 gave another address
        (HERE, {"FOREBAY_HOST": "127.0.0.2"}, False),
        ([], {}, False),
        (None, {}, False),
    ],
)
def test_an_agent_that_would_look_in_the_wrong_place_joins_again(
    kept: object, ports: dict[str, str], known: bool, tmp_path: Path, settings: Any
) -> None:
    settings.NODE_BROKER_URL = "redis://:other@127.0.0.1:8002/0"
    here = machine.read(ports, tmp_path)
    here.agent_home.mkdir()
    if kept is not None:
        (here.agent_home / "agent.json").write_text(json.dumps(kept))
    assert local_agent.knows_where(here) is known


def test_a_broker_that_is_no_longer_offered_is_not_looked_for(tmp_path: Path, settings: Any) -> None:
    settings.NODE_BROKER_URL = ""
    here = machine.read({}, tmp_path)
    here.agent_home.mkdir()
    (here.agent_home / "agent.json").write_text(json.dumps(HERE))
    assert not local_agent.knows_where(here)
