"""Whether a GPU is what it should be: its measured figures against those published and those of its siblings.

Siblings are the GPUs of the same name elsewhere in the fleet. On CPU slots, whose figures follow from whatever else the
host does, wrong results alone count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from controlplane.domain.published import Published
from workers.contract import DeviceKind
from workers.qualification import Figures

MIN_SIBLINGS = 2  # with fewer there is no telling which of them is the odd one
MIN_FOR_Z = 3
LINK_BAR = 0.5  # of the siblings' median: a link of half the lanes, or of an older generation
NOISE = 0.005  # of the median: two runs of one GPU differ by as much, so the others are taken to differ by no less
_MAD_TO_SIGMA = 0.6745


@dataclass(frozen=True, slots=True)
class Bars:
    """Below `siblings` of their median, or `published` of the published figure, or slower by `drift` at the end of the
    soak than at its beginning: flagged."""

    siblings: float = 0.8
    published: float = 0.6
    drift: float = 0.15


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure: `bar` is of the siblings' median, None for that of Bars; `known` finds it among those published."""

    key: str
    label: str
    unit: str
    value: Callable[[Figures], float | None]
    bar: float | None = None
    known: Callable[[Published], float] | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure beside what it is measured against. None: there is none. `z`: robust, in standard deviations."""

    key: str
    label: str
    unit: str
    value: float | None
    published: float | None
    siblings: float | None  # their median
    sibling_count: int
    z: float | None

    @property
    def of_published(self) -> float | None:
        return _share(self.value, self.published)

    @property
    def of_siblings(self) -> float | None:
        return _share(self.value, self.siblings)


@dataclass(frozen=True, slots=True)
class Finding:
    """What speaks against a GPU, in one sentence without a full stop."""

    code: str
    message: str


def _slowest_peer(figures: Figures) -> float | None:
    return min((peer.gbs for peer in figures.peers if peer.direct), default=None)


METRICS = (
    Metric("bf16_tflops", "bf16 matmul", "TFLOP/s", lambda f: f.bf16_tflops, known=lambda p: p.bf16_tflops),
    Metric("memory_gbs", "Memory bandwidth", "GB/s", lambda f: f.memory_gbs, known=lambda p: p.memory_gbs),
    Metric("to_device_gbs", "Host to GPU", "GB/s", lambda f: f.to_device_gbs, LINK_BAR),
    Metric("to_host_gbs", "GPU to host", "GB/s", lambda f: f.to_host_gbs, LINK_BAR),
    Metric("peer_gbs", "Slowest peer", "GB/s", _slowest_peer, LINK_BAR),
    Metric("fp32_tflops", "fp32 matmul", "TFLOP/s", lambda f: f.fp32_tflops),
)


def compare(figures: Figures, siblings: Sequence[Figures], known: Published | None) -> list[Compared]:
    """Every figure that was measured, beside the others."""
    return [one for metric in METRICS if (one := _compared(metric, figures, siblings, known)).value is not None]


def judge(
    figures: Figures,
    *,
    kind: str,
    siblings: Sequence[Figures] = (),
    known: Published | None = None,
    ecc_errors: int | None = None,
    bars: Bars = Bars(),
) -> list[Finding]:
    """What speaks against the GPU; nothing where it is fit."""
    findings = list(_wrong(figures, ecc_errors))
    if kind == DeviceKind.CPU:
        return findings
    for metric in METRICS:
        findings += _slow(metric, _compared(metric, figures, siblings, known), bars)
    if figures.soak and figures.soak.drift > bars.drift:
        message = f"its rate fell by {figures.soak.drift:.0%} within {figures.soak.seconds:.0f} s of work"
        findings.append(Finding("soak-drift", message))
    return findings


def _wrong(figures: Figures, ecc_errors: int | None) -> Iterator[Finding]:
    if figures.wrong:
        yield Finding("wrong-results", "its products are not what they must be")
    if figures.soak and figures.soak.mismatches:
        times = f"{figures.soak.mismatches} of {figures.soak.checks} times"
        yield Finding("corrupt-results", f"the same product came out differently {times}")
    if ecc_errors:
        yield Finding("ecc-errors", f"{ecc_errors} uncorrectable memory errors came while it was measured")
    for fault in figures.faults:
        yield Finding("fault", f"it failed while it was measured: {fault}")


def _slow(metric: Metric, one: Compared, bars: Bars) -> Iterator[Finding]:
    bar = bars.siblings if metric.bar is None else metric.bar
    value = f"{metric.label}: {one.value:.4g} {metric.unit} is" if one.value is not None else ""
    if one.of_siblings is not None and one.of_siblings < bar:
        message = f"{value} {one.of_siblings:.0%} of the median of {one.sibling_count} others ({one.siblings:.4g})"
        yield Finding("below-siblings", message)
    if one.of_published is not None and one.of_published < bars.published:
        yield Finding("below-published", f"{value} {one.of_published:.0%} of what is published ({one.published:.4g})")


def _compared(metric: Metric, figures: Figures, siblings: Sequence[Figures], known: Published | None) -> Compared:
    value = metric.value(figures)
    others = [other for sibling in siblings if (other := metric.value(sibling)) is not None]
    return Compared(
        key=metric.key,
        label=metric.label,
        unit=metric.unit,
        value=value,
        published=metric.known(known) if metric.known and known else None,
        siblings=median(others) if len(others) >= MIN_SIBLINGS else None,
        sibling_count=len(others),
        z=_robust_z(value, others),
    )


def _robust_z(value: float | None, others: Sequence[float]) -> float | None:
    """How many standard deviations it lies off the others' median, the odd ones among them notwithstanding."""
    if value is None or len(others) < MIN_FOR_Z:
        return None
    middle = median(others)
    deviation = max(median(abs(other - middle) for other in others), NOISE * middle)
    return _MAD_TO_SIGMA * (value - middle) / deviation if deviation else None


def _share(value: float | None, whole: float | None) -> float | None:
    return None if value is None or not whole else value / whole
