"""The cheapest size that keeps an SLO on a trace: each is tried by a replay, from the fewest engines upwards. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain import replay
from controlplane.domain.replay import Floats, Trace
from controlplane.domain.sizing import Demand, Group, Judged, Offer, Size, Slo, after, decoders, judge, most_batch

MORE_PREFILL = 2  # engines beyond the fewest that are tried, for they may spare one of decode
SMALL_BUDGET = 512  # tokens; keeps an aggregated engine's steps short for those who decode beside


@dataclass(frozen=True, slots=True)
class Found:
    """The cheapest of either kind that keeps the SLO within the GPUs there are; `best` is the cheaper one. Where none
    fits, `wanted` is the cheapest that would, and its `missing` says what it lacks; None: no number would."""

    aggregated: Judged | None
    disaggregated: Judged | None
    wanted: Judged | None
    replays: int

    @property
    def best(self) -> Judged | None:
        both = [one for one in (self.aggregated, self.disaggregated) if one]
        return min(both, key=lambda one: one.size.price_per_hour, default=None)


def find(trace: Trace, offers: Sequence[Offer], slo: Slo, *, transfer_ms_per_token: float = 0.0) -> Found:
    """Each kind from the fewest engines that could do the work at all, upwards; none that costs more than one found.
    Where nothing fits, the search goes on with four times the GPUs, to say what is missing."""
    search = _Search(trace, slo, transfer_ms_per_token)
    both, apart = search.aggregated(offers), search.disaggregated(offers)
    if both or apart:
        return Found(both, apart, None, search.replays)
    wide = [Offer(offer.speed, offer.gpus * 4, offer.gpu_hour) for offer in offers]
    real = {(offer.gpu, offer.tp): offer for offer in offers}
    wanted = [one for one in (search.aggregated(wide), search.disaggregated(wide)) if one]
    cheapest = min(wanted, key=lambda one: one.size.price_per_hour, default=None)
    return Found(None, None, _on(cheapest, real) if cheapest else None, search.replays)


def fewest(
    trace: Trace, offers: Sequence[Offer], slo: Slo, *, apart: bool, transfer_ms_per_token: float = 0.0
) -> Judged | None:
    """The cheapest of one kind that keeps the SLO within the GPUs there are: prefill and decode `apart`, or not."""
    search = _Search(trace, slo, transfer_ms_per_token)
    return search.disaggregated(offers) if apart else search.aggregated(offers)


class _Search:
    def __init__(self, trace: Trace, slo: Slo, transfer_ms_per_token: float) -> None:
        self.trace, self.slo, self.transfer = trace, slo, transfer_ms_per_token
        self.demand = Demand.of(trace)
        self.replays = 0

    def aggregated(self, offers: Iterable[Offer]) -> Judged | None:
        best: Judged | None = None
        for offer in offers:
            batch = most_batch(offer.speed, self.demand, self.slo)
            for budget in sorted({SMALL_BUDGET, offer.speed.knee.tokens}) if batch else ():
                best = self._fewest(offer, budget, batch, best)
        return best

    def disaggregated(self, offers: Sequence[Offer]) -> Judged | None:
        best: Judged | None = None
        for prefill in offers:
            tried = 0
            for count in range(self._least_prefill(prefill), prefill.most + 1):
                group = Group(prefill, count, prefill.speed.knee.tokens, prefill.speed.max_num_seqs)
                if tried > MORE_PREFILL or _dearer(group.price, best):
                    break
                done = self._prefill(group)
                if done is not None:
                    tried += 1
                    best = self._with_decode(group, done, offers, best)
        return best

    def _fewest(self, offer: Offer, budget: int, batch: int, best: Judged | None) -> Judged | None:
        for count in range(self._least_prefill(offer), offer.most + 1):
            size = Size(None, Group(offer, count, budget, batch))
            if _dearer(size.price_per_hour, best):
                break
            self.replays += 1
            judged = judge(self.trace, size, self.slo)
            if judged.met >= self.slo.share:
                return judged
        return best

    def _prefill(self, group: Group) -> Floats | None:
        """When prompts are done; None where too few are in time, whatever decode does then."""
        self.replays += 1
        done = replay.prefill(self.trace, group.engines)
        waited = done - self.trace.at_ms + self.transfer * self.trace.isl
        return done if float((waited <= self.slo.ttft_ms).mean()) >= self.slo.share else None

    def _with_decode(self, prefill: Group, done: Floats, offers: Iterable[Offer], best: Judged | None) -> Judged | None:
        for offer in offers:
            batch = most_batch(offer.speed, self.demand, self.slo)
            least = max(1, decoders(self.demand, offer.speed, batch, 0.5) - 1) if batch else offer.most + 1
            for count in range(least, offer.most + 1):
                size = Size(prefill, Group(offer, count, offer.speed.knee.tokens, batch))
                if size.missing or _dearer(size.price_per_hour, best):
                    break
                self.replays += 1
                judged = after(self.trace, done, size, self.slo, self.transfer)
                if judged.met >= self.slo.share:
                    best = judged
                    break
        return best

    def _least_prefill(self, offer: Offer) -> int:
        """Below this the prompts alone are more than the time."""
        busy_ms = 1000.0 * float(self.trace.isl.sum()) / offer.speed.knee.plateau
        return max(1, math.floor(busy_ms / float(self.trace.at_ms[-1] - self.trace.at_ms[0])))


def _dearer(price: float, best: Judged | None) -> bool:
    return best is not None and price >= best.size.price_per_hour


def _on(judged: Judged, real: Mapping[tuple[str, int], Offer]) -> Judged:
    """The same size, on the GPUs that are really there."""

    def there(group: Group) -> Group:
        return Group(real[group.offer.gpu, group.offer.tp], group.count, group.budget, group.batch)

    size = judged.size
    moved = Size(there(size.prefill) if size.prefill else None, there(size.decode))
    return Judged(moved, judged.met, judged.ttft_ms, judged.itl_ms)
