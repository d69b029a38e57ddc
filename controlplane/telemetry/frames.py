"""Makes the frames: what changed since the frame before. One per leading process; it blocks, so it runs in a thread."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping

import msgspec

from controlplane.telemetry import head, latest, live
from controlplane.telemetry.frame import EVERYTHING, Frame, Wants
from controlplane.telemetry.head import Place
from controlplane.telemetry.latest import Latest
from controlplane.telemetry.node_object import LiveNode
from controlplane.telemetry.picture import Fleet

_json = msgspec.json.Encoder().encode


class Frames:
    """A new epoch each time somebody begins to lead; its first frame holds all nodes."""

    def __init__(self, summary: live.RequestSummary | None = None) -> None:
        self._summary = summary
        self._place = Place(secrets.token_hex(6), 0)
        self._sent: dict[int, LiveNode] = {}
        self._cells: dict[str, dict[int, tuple[LiveNode, bytes]]] = {}

    def next(self, wants: Wants = EVERYTHING) -> Frame:
        """The next frame with what somebody `wants` of it, after its place was written down for those who load by
        REST."""
        fleet, before = live.picture.look(_news if self._sent else _all), self._sent
        self._cells = {fill: self._fill(fill, fleet) for fill in wants.fills}
        moved = [pk for pk, node in fleet.nodes.items() if _shape_of(before.get(pk)) is not node.shape]
        heard = [pk for pk, node in fleet.nodes.items() if pk in before and before[pk].last_seen != node.last_seen]
        told = set(moved).union(heard if wants.everything else (), wants.detail)
        place = Place(self._place.epoch, self._place.seq + 1)
        frame = Frame(
            seq=place.seq,
            epoch=place.epoch,
            at=fleet.at,
            common=self._common(fleet),
            removed=sorted(before.keys() - fleet.nodes.keys()),
            moved=moved,
            heard=heard,
            ages=_ages(fleet, heard),
            nodes={pk: node.text(fleet.at) for pk, node in fleet.nodes.items() if pk in told},
            is_whole=wants.everything or not before,
            cells={fill: {pk: text for pk, (_, text) in made.items()} for fill, made in self._cells.items()},
        )
        head.write(place)
        self._place, self._sent = place, fleet.nodes
        return frame

    def _common(self, fleet: Fleet) -> bytes:
        """Members that all frames share, without the braces."""
        summary = live.summarize(fleet, self._summary)
        return _json({"summary": summary, "brake": fleet.brake.to_dict(), **live.intent()})[1:-1]

    def _fill(self, fill: str, fleet: Fleet) -> dict[int, tuple[LiveNode, bytes]]:
        """Of all nodes; those that were not heard as they were made before."""
        held = self._cells.get(fill, {})
        return {
            pk: old if (old := held.get(pk)) and old[0] is node else (node, _json(node.cells(fill)))
            for pk, node in fleet.nodes.items()
        }


def _all(nodes: Collection[int], lacking: Collection[int]) -> Mapping[int, Latest]:
    """What changed is read for the frame after this one too: whoever led before may have taken it from the list."""
    return latest.read(nodes)


def _news(nodes: Collection[int], lacking: Collection[int]) -> Mapping[int, Latest]:
    """The figures of nodes that were heard, and of those that nothing is known of yet."""
    changed = latest.pop_changed()
    return latest.read(pk for pk in nodes if pk in changed or pk in lacking)


def _ages(fleet: Fleet, heard: Iterable[int]) -> bytes:
    """Of each node that was heard its id and how old its report is, in tenths of a second, in one row."""
    row: list[int] = []
    for pk in heard:
        row += (pk, round(max(0.0, fleet.at - (fleet.nodes[pk].last_seen or fleet.at)) * 10))
    return _json(row)


def _shape_of(node: LiveNode | None) -> object:
    return node.shape if node else None
