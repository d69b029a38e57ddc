"""A frame as it goes from the leading process to all that have watchers, and what each watcher gets of it.

A watcher that said nothing gets everything: whole nodes, once they change. One that said what it shows gets a node only
when its shape changes or it shows all of it, one figure of the GPUs in sight, and how old each node's data is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Literal

import msgspec

from controlplane.telemetry.node_object import Fill

MOST_BYTES = 32_768  # of a watcher's message
MOST_NODES, MOST_DETAIL = 4_000, 200
_Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a watcher says it shows: one figure of the GPUs of `nodes`, and all there is of the nodes in `detail`."""

    type: Literal["view"]
    fill: Fill | None = None
    nodes: Annotated[list[_Id], msgspec.Meta(max_length=MOST_NODES)] = []
    detail: Annotated[list[_Id], msgspec.Meta(max_length=MOST_DETAIL)] | Literal["all"] = []


BLANK = View("view")  # shapes and ages alone


class Wants(msgspec.Struct, frozen=True):
    """What the watchers of a process, or of all, want of a frame besides the nodes whose shape changed."""

    everything: bool = False
    fills: frozenset[str] = frozenset()
    detail: frozenset[int] = frozenset()

    def __or__(self, other: Wants) -> Wants:
        return Wants(self.everything or other.everything, self.fills | other.fills, self.detail | other.detail)


NOTHING, EVERYTHING = Wants(), Wants(everything=True)


class Frame(msgspec.Struct, frozen=True, dict=True):
    """JSON is in it as bytes already: `nodes` and `cells` by id, `common` members that every watcher gets."""

    seq: int
    epoch: str
    at: float
    common: bytes
    removed: list[int]
    moved: list[int]  # their shape changed: they are in `nodes`
    heard: list[int]
    ages: bytes
    nodes: dict[int, bytes]
    is_whole: bool  # all of `heard` are in `nodes`
    cells: dict[str, dict[int, bytes]]

    @cached_property
    def everything(self) -> str:
        return self.text({*self.moved, *self.heard})

    def text(self, nodes: Iterable[int], fill: str = "", cells: Iterable[int] = (), *, late: bool = False) -> str:
        """As JSON for one watcher. `late`: what it asked for in between; it is no step in the row of frames."""
        whole = b",".join(self.nodes[pk] for pk in nodes if pk in self.nodes)
        values = self.cells.get(fill, {})
        filled = b",".join(b'"%d":%b' % (pk, values[pk]) for pk in cells if pk in values)
        parts = [
            b'{"type":"%b","seq":%d,"epoch":"%b","at":%.3f'
            % (b"late" if late else b"frame", self.seq, self.epoch.encode(), self.at),
            b'"nodes":[%b]' % whole,
        ]
        if fill:
            parts.append(b'"fill":"%b","cells":{%b}' % (fill.encode(), filled))
        if not late:
            parts += [b'"removed":%b' % msgspec.json.encode(self.removed), b'"heard":%b' % self.ages, self.common]
        return (b",".join(parts) + b"}").decode()


class Lens:
    """What one watcher sees of the frames."""

    def __init__(self, view: View | None = None) -> None:
        self._view = view
        self._nodes: frozenset[int] = frozenset()
        self._detail: frozenset[int] = frozenset()
        self._owed_cells: set[int] = set()
        self._owed_nodes: set[int] = set()
        self._began = False
        if view:
            self.turn(view)

    @property
    def wants(self) -> Wants:
        if self._is_open:
            return EVERYTHING
        return Wants(fills=frozenset({self._fill} if self._fill and self._nodes else ()), detail=self._detail)

    def turn(self, view: View) -> None:
        """Show something else from now on. What comes into sight is owed even if it is not heard."""
        before = self._view
        same_fill = before is not None and before.fill == view.fill
        nodes = frozenset(view.nodes)
        detail = frozenset() if view.detail == "all" else frozenset(view.detail)
        new_in_sight = nodes - self._nodes if same_fill else nodes
        self._owed_cells = self._owed_cells & nodes | new_in_sight
        self._owed_nodes = self._owed_nodes & detail | (detail - self._detail)
        self._view, self._nodes, self._detail = view, nodes, detail

    def see(self, frame: Frame) -> str | None:
        """The frame for this watcher; None while the frames lack what it asked for first: all of everything."""
        if self._is_open:
            self._began = self._began or frame.is_whole
            return frame.everything if self._began else None
        heard = set(frame.heard)
        cells = self._nodes & heard | self._pay(self._owed_cells, frame.cells.get(self._fill, {}))
        moved = () if frame.seq == 1 else frame.moved  # with a new epoch the watcher loads everything anew
        whole = {*moved, *(self._detail & heard), *self._pay(self._owed_nodes, frame.nodes)}
        return frame.text(whole, self._fill, cells)

    def catch_up(self, frame: Frame) -> str | None:
        """What is owed and lies in the last frame, at once."""
        if self._is_open:
            return None
        nodes = self._pay(self._owed_nodes, frame.nodes)
        cells = self._pay(self._owed_cells, frame.cells.get(self._fill, {}))
        return frame.text(nodes, self._fill, cells, late=True) if nodes or cells else None

    @property
    def _is_open(self) -> bool:
        return self._view is None or self._view.detail == "all"

    @property
    def _fill(self) -> str:
        return (self._view.fill if self._view else None) or ""

    @staticmethod
    def _pay(owed: set[int], there: dict[int, bytes]) -> set[int]:
        paid = owed & there.keys()
        owed -= paid
        return paid
