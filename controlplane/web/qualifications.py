"""What the node's page shows of GPUs that were measured: each figure beside the published one and its siblings'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.domain.published import published
from controlplane.domain.qualification import Compared, compare
from controlplane.fleet import qualified
from controlplane.fleet.models import Gpu, GpuQualification
from workers.contract import DeviceKind
from workers.qualification import Figures, Qualification

State = GpuQualification.State
_CHIPS = {
    State.ASKED: ("busy", "wanted"), State.WAITING: ("busy", "waiting"), State.RUNNING: ("busy", "measuring"),
    State.FAILED: ("warn", "not measured"), State.WITHDRAWN: ("idle", "given up"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure with its length, and where the other two lie, in percent of the longest."""

    figure: Compared
    width: str
    published_at: str
    siblings_at: str


@dataclass(frozen=True, slots=True)
class Row:
    gpu: Gpu
    last: GpuQualification | None  # the last one asked for
    known: GpuQualification | None  # the newest that is done
    result: Qualification | None
    bars: tuple[Bar, ...]

    @property
    def chip(self) -> tuple[str, str]:
        """Class and word of its state."""
        if self.last is not None and (self.last.is_open or self.known is None):
            return _CHIPS[State(self.last.state)]
        if self.known is None:
            return ("idle", "never measured")
        if self.known.accepted_by:
            return ("warn", "accepted")
        return ("bad", "below the bar") if self.known.findings else ("ok", "fit")

    @property
    def can_measure(self) -> bool:
        assigned = self.gpu.partition is not None and self.gpu.partition.deployment_id is not None
        simulated = self.gpu.kind == DeviceKind.SIMULATED or self.gpu.node.simulated
        return self.gpu.present and not (assigned or simulated or self.is_open)

    @property
    def is_open(self) -> bool:
        return self.last is not None and self.last.is_open

    @property
    def what_failed(self) -> str:
        """Of the last one, where it is not the one whose figures are shown."""
        return self.last.message if self.last is not None and self.last.state == State.FAILED else ""


def rows(gpus: Sequence[Gpu]) -> list[Row]:
    """In the order of the GPUs; the siblings of each name are read once."""
    known, last = qualified.newest(gpus), qualified.last(gpus)
    siblings = {
        name: qualified.figures_by_gpu(*name) for name in {(row.gpu.kind, row.gpu.name) for row in known.values()}
    }
    return [_row(gpu, last.get(gpu.pk), known.get(gpu.pk), siblings) for gpu in gpus]


def _row(
    gpu: Gpu,
    last: GpuQualification | None,
    known: GpuQualification | None,
    siblings: dict[tuple[str, str], dict[int, Figures]],
) -> Row:
    if known is None:
        return Row(gpu, last, None, None, ())
    others = [figures for pk, figures in siblings[gpu.kind, gpu.name].items() if pk != gpu.pk]
    compared = compare(qualified.figures_of(known), others, published(gpu.name))
    return Row(gpu, last, known, qualified.result_of(known), tuple(_bar(one) for one in compared))


def _bar(one: Compared) -> Bar:
    longest = max(value for value in (one.value, one.published, one.siblings) if value is not None) or 1.0
    at = [
        f"{100 * value / longest:.1f}%" if value is not None else ""
        for value in (one.value, one.published, one.siblings)
    ]
    return Bar(one, *at)
