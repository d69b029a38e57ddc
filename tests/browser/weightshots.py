"""Takes pictures of where weights lie and what is fetched, on the pages of a node and of a model: 1440 and 380 px, dark
and light; with nothing there, in every state, and on a node that fetches nothing.

python -m tests.browser.weightshots FOLDER [--only NAME,NAME]
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from tests.browser.pictures import Shooter, program

COMMIT = "c" * 40
NO_ROOM = "no room: it needs 131.4 GiB, and with what has to stay that is 20.2 GiB above the cap of 500.0 GiB"


def shoot(shooter: Shooter, _options: argparse.Namespace) -> None:
    made = furnish()
    for name, address in made.items():
        shooter.take(name, address)


def furnish() -> dict[str, str]:
    """Every state that a row may have; the addresses to look at, by name. Needs Django, which needs the environment."""
    from django.utils import timezone

    from tests.browser import week  # noqa: F401 - sets Django up
    from controlplane.fleet.models import HeldWeights, WantedWeights  # isort: skip
    from tests.factories import make_model, make_node  # isort: skip

    now = timezone.now()
    heard = {"last_seen": now + timedelta(days=1), "weights_mark": "told"}
    node = make_node("gpu-east-1", gpus=2, fetch_room_bytes=1700 * 2**30, weights_left_out=3, **heard)
    other = make_node("gpu-east-2", gpus=2, fetch_room_bytes=800 * 2**30, **heard)
    offline = make_node("gpu-west-1", fetch_why_not="HF_HUB_OFFLINE is set on this node: nothing is fetched", **heard)
    empty = make_node("gpu-west-2")
    gib = 2**30
    names = (
        "chat-70b",
        "code-32b",
        "embed-large-with-a-long-name-for-a-narrow-phone",
        "mini-8b",
        "rank-7b",
        "vision-12b",
    )
    models = {name: make_model(name, kind="huggingface", source=f"org/{name}") for name in names}
    folder = make_model("tiny", kind="folder", source="/srv/models/tiny")

    def held(at: Any, name: str, state: str, bytes: int, total: int, **more: Any) -> None:
        HeldWeights.objects.create(
            node=at,
            source=f"org/{name}",
            revisions=[COMMIT, "main"],
            state=state,
            bytes=bytes,
            total_bytes=total,
            **more,
        )

    def wanted(at: Any, name: str, cause: str = "operator", **more: Any) -> None:
        by = {"asked_by": "kim" if cause == "operator" else "pool"}
        WantedWeights.objects.create(node=at, model=models[name], cause=cause, **by, **more)

    held(node, "chat-70b", "complete", 131 * gib, 131 * gib, used_at=now - timedelta(minutes=4),
         checked_at=now - timedelta(days=2))  # fmt: skip
    wanted(node, "chat-70b", "forecast", chance=0.84)
    wanted(node, "code-32b", state="fetching", bytes=22 * gib, total_bytes=61 * gib)
    wanted(node, names[2], state="failed",
           message=NO_ROOM)  # fmt: skip
    wanted(node, "mini-8b", "forecast", chance=0.12, state="waiting")
    held(node, "rank-7b", "partial", 3 * gib, 14 * gib, message="2 of 4 weight files are missing, model-00003 first")
    wanted(node, "vision-12b")
    HeldWeights.objects.create(
        node=node, source="/srv/models/tiny", state="complete", bytes=gib // 4, total_bytes=gib // 4
    )
    held(other, "code-32b", "complete", 61 * gib, 61 * gib)
    wanted(offline, "code-32b", state="failed", message=offline.fetch_why_not)
    return {
        "weights-node": f"/nodes/{node.pk}/#weights",
        "weights-node-offline": f"/nodes/{offline.pk}/#weights",
        "weights-node-empty": f"/nodes/{empty.pk}/#weights",
        "weights-model": f"/models/{models['code-32b'].pk}/#weights",
        "weights-model-folder": f"/models/{folder.pk}/#weights",
    }


if __name__ == "__main__":
    program(__doc__, shoot)
