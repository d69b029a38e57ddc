"""By how much engines of one kind miss an SLO that no number of them keeps: told as the reason to have the other kind.
Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from controlplane.domain.replay import Trace
from controlplane.domain.size_search import SMALL_BUDGET
from controlplane.domain.sizing import Demand, Group, Judged, Offer, Size, Slo, judge, most_batch

SPLITS = 4  # of the engines there are into prefill and decode, that are tried


def nearest(
    trace: Trace, offers: Sequence[Offer], slo: Slo, *, apart: bool, transfer_ms_per_token: float = 0.0
) -> Judged | None:
    """Of all that the GPUs hold of one kind, by a replay: what serves most requests within the SLO, and of as many what
    misses it by least. None: they hold no engine of it."""
    demand = Demand.of(trace)
    sizes = _apart(offers, demand, slo) if apart else _both(offers, demand, slo)
    judged = [judge(trace, size, slo, transfer_ms_per_token=transfer_ms_per_token) for size in sizes]
    return max(judged, key=lambda one: (one.met, -_over(one, slo)), default=None)


def told(judged: Judged, slo: Slo) -> str:
    """What it misses, at the SLO's share: "ITL of 60 ms by 12.3 ms"."""
    both = (("TTFT", judged.ttft_ms, slo.ttft_ms), ("ITL", judged.itl_ms, slo.itl_ms))
    missed = [f"{name} of {aim:g} ms by {_ms(took - aim)} ms" for name, took, aim in both if took > aim]
    return " and ".join(missed) or f"one or the other for {1.0 - judged.met:.1%} of requests"


def _over(judged: Judged, slo: Slo) -> float:
    """How many times its aim the figure is that misses it most."""
    return max(judged.ttft_ms / slo.ttft_ms, judged.itl_ms / slo.itl_ms)


def _ms(time: float) -> str:
    return f"{time:,.0f}" if time >= 10.0 else f"{time:.2g}"


def _both(offers: Sequence[Offer], demand: Demand, slo: Slo) -> Iterator[Size]:
    for offer in offers:
        if offer.most:
            for budget in sorted({SMALL_BUDGET, offer.speed.knee.tokens}):
                yield Size(None, Group(offer, offer.most, budget, _batch(offer, demand, slo)))


def _apart(offers: Sequence[Offer], demand: Demand, slo: Slo) -> Iterator[Size]:
    """On GPUs of one kind, and with prefill on all of one and decode on all of another."""
    for offer in offers:
        counts = {int(count) for count in np.linspace(1, offer.most - 1, SPLITS)} if offer.most > 1 else set()
        for count in sorted(counts):
            yield Size(_prefill(offer, count), _decode(offer, offer.most - count, demand, slo))
        for other in offers:
            if other is not offer and other.gpu != offer.gpu and offer.most and other.most:
                yield Size(_prefill(offer, offer.most), _decode(other, other.most, demand, slo))


def _prefill(offer: Offer, count: int) -> Group:
    return Group(offer, count, offer.speed.knee.tokens, offer.speed.max_num_seqs)


def _decode(offer: Offer, count: int, demand: Demand, slo: Slo) -> Group:
    return Group(offer, count, offer.speed.knee.tokens, _batch(offer, demand, slo))


def _batch(offer: Offer, demand: Demand, slo: Slo) -> int:
    """The greatest that keeps ITL; one sequence at a time where even that does not."""
    return max(1, most_batch(offer.speed, demand, slo))
