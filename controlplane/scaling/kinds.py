"""Whether a deployment would be served for less with prefill and decode in engines of their own, or in one: told with
the number. A plan that switches is proposed where that is clear (`switching`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controlplane.domain import demand, shortfall, size_search, switching
from controlplane.domain.profiles import Source
from controlplane.domain.replay import Trace
from controlplane.domain.sizing import Judged, Slo
from controlplane.planning.offers import Offered, sources
from controlplane.scaling.models import LaneLook
from workers.contract import Role

HOLDS = timedelta(hours=1)  # a search takes seconds, and nobody switches by the minute
ONLY_HOLDS = timedelta(minutes=10)  # where the other kind alone will do, and is due in half an hour


@dataclass(frozen=True, slots=True)
class Other:
    """`text`: what the other kind would take, against the one that there is. `ratio`: its price over that one's; None:
    one of the two keeps the objectives alone, or neither. `counts`: its engines by role; None: there are none, some are
    known by a roofline alone, or they would not do at the peak of the last day. `rate`: requests a second that it was
    found for; `basis`: the kind and the aims, as `basis` tells them. `missed`: no number of the engines that there are
    keeps the objectives."""

    text: str
    ratio: float | None
    at: datetime
    rate: float
    counts: Mapping[Role, int] | None = None
    basis: str = ""
    missed: bool = False

    @property
    def only(self) -> bool:
        """No number of the engines that there are keeps the objectives, and these do, by what was measured."""
        return self.missed and self.counts is not None

    def is_of(self, mine: Judged | None) -> bool:
        """Whether it was compared with what is found of the engines that there are now."""
        return self.missed == (mine is None)


@dataclass(frozen=True, slots=True)
class Asked:
    """`trace` comes at `rate` requests a second. `apart`: prefill and decode have engines of their own. `transfer`: of
    KV between them, ms a token. `level`: how sure it is of the lengths. `peak`: the
    highest rate of the last day, 0 where it is not known."""

    trace: Trace
    rate: float
    slo: Slo
    apart: bool
    transfer: float
    level: float = 0.0
    peak: float = 0.0


def basis(slo_ttft_ms: float | None, slo_itl_ms: float | None, level: float, *, apart: bool) -> str:
    """What a comparison with the other kind than `apart` is made for; made for something else it tells nothing."""
    aims = " ".join("-" if one is None else f"{float(one)!r}" for one in (slo_ttft_ms, slo_itl_ms))
    return f"{_name(not apart)} {aims} {level!r}"


def fewest(asked: Asked, found: Sequence[Offered], *, apart: bool) -> Judged | None:
    engines = [one.offer for one in found]
    return size_search.fewest(asked.trace, engines, asked.slo, apart=apart, transfer_ms_per_token=asked.transfer)


def held(looks: Mapping[str, LaneLook], basis: str, rate: float, now: datetime) -> Other | None:
    """What was found within the last hour, ten minutes where it says that the other kind alone will do, if it was for
    the same kind and aims and the rate has not left the one it was found for: a switch takes as many engines as it
    says."""
    for look in looks.values():
        if look.other_at is None or look.other_rate is None or look.other_basis != basis:
            continue
        counts = look.other_counts and {Role(role): count for role, count in look.other_counts.items()}
        found = Other(
            look.other, look.other_ratio, look.other_at, look.other_rate, counts, basis, look.other_missed
        )  # fmt: skip
        if now - found.at <= (ONLY_HOLDS if found.only else HOLDS) and not demand.has_left(found.rate, rate):
            return found
    return None


def compare(asked: Asked, found: Sequence[Offered], mine: Judged | None, now: datetime) -> Other:
    """`mine`: what the kind that there is takes, None where no number of its engines does."""
    name, other = _name(not asked.apart), fewest(asked, found, apart=not asked.apart)
    slo, missed = asked.slo, mine is None
    about = basis(slo.ttft_ms, slo.itl_ms, asked.level, apart=asked.apart)
    if other is None:
        text = f"{name} engines on these GPUs would not keep the objectives, however many"
        return Other(text, None, now, asked.rate, None, about, missed)
    what = f"{other.size.told} for {asked.rate:.3g} requests a second"
    size = f"{what}, {other.met:.1%} within the objectives"
    if mine is None:
        text = f"{name} engines would keep the objectives{_doubt(found)}, {_missed(asked, found)}: {size}"
        return Other(text[:255], None, now, asked.rate, _counts(other, found), about, missed)
    ratio = other.size.price_per_hour / mine.size.price_per_hour
    verb = "would do with" if ratio < 1.0 else "would take"
    peak = _peak(asked, found) if switching.is_clear(ratio) else ""
    unit = "the price" if all(one.price is not None for one in found) else "the GPUs"
    text = f"{name} engines {verb} {ratio:.2f} times {unit}{_doubt(found)}{peak}: {size}"
    return Other(text[:255], ratio, now, asked.rate, None if peak else _counts(other, found), about, missed)


def _peak(asked: Asked, found: Sequence[Offered]) -> str:
    """Where the other kind would have to be left again at the peak: what it cannot do, which this one can."""
    if asked.peak <= asked.rate or not demand.has_left(asked.rate, asked.peak):
        return ""
    most = replace(asked, trace=asked.trace.at_rate(asked.peak), rate=asked.peak)
    if fewest(most, found, apart=not asked.apart) is not None or fewest(most, found, apart=asked.apart) is None:
        return ""
    return f", but not at {asked.peak:.3g} requests a second, the most of the last day"


def _missed(asked: Asked, found: Sequence[Offered]) -> str:
    """By how much those that there are miss them."""
    engines, mine = [one.offer for one in found], _name(asked.apart).lower()
    best = shortfall.nearest(
        asked.trace, engines, asked.slo, apart=asked.apart, transfer_ms_per_token=asked.transfer
    )  # fmt: skip
    if best is None:
        return f"{mine} ones have too few GPUs"
    return f"{mine} ones miss {shortfall.told(best, asked.slo)} at best"


def _counts(judged: Judged, found: Sequence[Offered]) -> Mapping[Role, int] | None:
    if Source.ROOFLINE.value in sources(found):
        return None
    size = judged.size
    if size.prefill is None:
        return {Role.AGGREGATED: size.decode.count}
    return {Role.PREFILL: size.prefill.count, Role.DECODE: size.decode.count}


def _name(apart: bool) -> str:
    return "Disaggregated" if apart else "Aggregated"


def _doubt(found: Sequence[Offered]) -> str:
    known = Source.ROOFLINE.value not in sources(found)
    return "" if known else " (by a roofline alone: measure before you choose)"
