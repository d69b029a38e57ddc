"""Weights are fetched ahead through the whole stack, by the engine's real hub client, from a stand-in for the hub. No
engine runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import Stack, eventually
from tests.standin_hub import StandinHub, standin_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[StandinHub]:
    with standin_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def stack(hub: StandinHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp("fetching")
    made = Stack(home / "home", demo="none", slots=1)
    made.environ |= {
        "HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1",
        "FOREBAY_MODELS_FREE": "0", "FOREBAY_QUALIFY": "never", "FOREBAY_FAST_START": "off",
    }  # fmt: skip
    try:
        made.up()
        yield made
    finally:
        made.clean_up()


def test_weights_come_are_watched_checked_kept_and_come_again_when_they_vanish(stack: Stack, hub: StandinHub) -> None:
    total = hub.add("org/m", size=40_000_000)
    hub.bytes_s = 8_000_000
    model = stack.rest("POST", "/models", json={"name": "m", "source": "org/m"})
    node = eventually(lambda: stack.rest("GET", "/nodes")["results"], within_s=60, what="a node")[0]
    path = f"/nodes/{node['id']}/weights"

    def row() -> dict[str, Any]:
        return next(iter(stack.rest("GET", path)["weights"]))

    asked = stack.rest("POST", path, json={"model": model["id"], "reason": "launch"})["weights"][0]
    assert asked["state"] == "missing" and asked["wanted"]["cause"] == "operator"

    def on_its_way() -> dict[str, Any] | None:
        wanted = row()["wanted"]
        return wanted if wanted["state"] == "fetching" and 0 < wanted["bytes"] < total else None

    seen = eventually(on_its_way, within_s=90, what="bytes that come")
    assert seen["total_bytes"] == total
    hub.bytes_s = float("inf")

    def whole() -> dict[str, Any] | None:
        one = row()
        return one if one["state"] == "complete" and one["checked_at"] and one["wanted"]["state"] == "" else None

    eventually(whole, within_s=90, what="all of them, checked")
    assert stack.rest("GET", path)["fetch_room_bytes"] is not None
    for shard in Path(stack.environ["HF_HOME"]).glob("hub/models--org--m/blobs/*"):
        if shard.stat().st_size > 1_000_000:
            shard.unlink()
    eventually(lambda: row()["state"] != "complete", within_s=90, what="that they are gone is seen")
    eventually(whole, within_s=120, what="they are fetched again")
    stack.rest("POST", path, json={"model": model["id"], "wanted": False})
    assert (row()["state"], row()["wanted"]) == ("complete", None)
