"""Makes the frames: what changed since the frame before. One per leading process; it blocks, so it runs in a thread."""

from __future__ import annotations

import secrets
import time

import msgspec

from controlplane.telemetry import head, latest, live
from controlplane.telemetry.head import Place
from controlplane.telemetry.latest import Latest
from controlplane.telemetry.node_object import LiveNode


class Frames:
    """A new epoch each time somebody begins to lead; its first frame holds all nodes."""

    def __init__(self, summary: live.RequestSummary | None = None) -> None:
        self._summary = summary
        self._place = Place(secrets.token_hex(6), 0)
        self._sent: dict[int, LiveNode] | None = None
        self._figures: dict[int, Latest] = {}

    def next(self) -> str:
        """The next frame as JSON text, after its place was written down for those who load by REST."""
        fleet = self._fleet()
        before = self._sent or {}
        changed = [node for pk, node in fleet.nodes.items() if pk not in before or _differs(node, before[pk])]
        place = Place(self._place.epoch, self._place.seq + 1)
        frame = {
            "type": "frame",
            "seq": place.seq,
            "epoch": place.epoch,
            "at": fleet.at,
            "nodes": [node.at(fleet.at) for node in changed],
            "removed": sorted(before.keys() - fleet.nodes.keys()),
            "summary": live.summarize(fleet, self._summary),
            "brake": fleet.brake.to_dict(),
            **live.intent(),
        }
        text = msgspec.json.encode(frame).decode()
        head.write(place)
        self._place, self._sent, self._figures = place, fleet.nodes, fleet.figures
        return text

    def _fleet(self) -> live.Fleet:
        rows = live.node_rows()
        changed = latest.pop_changed()
        wanted = [row.pk for row in rows if row.pk in changed or row.pk not in self._figures]
        return live.build(rows, {**self._figures, **latest.read(wanted)}, time.time())


def _differs(now: LiveNode, before: LiveNode) -> bool:
    return now.last_seen != before.last_seen or now.since != before.since or now.facts != before.facts
