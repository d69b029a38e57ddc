"""The autoscaler over real traffic, beside fixed numbers of engines and one who knows the future.

    python -m bench.autoscale [--quick] [--start-s 60]

Traces: 35 minutes of two Azure services (conversation, code), of which nothing was on record before; and three hours of
one client of ServeGen, in which its day begins, with the five days before on record. That one's arrivals are drawn by
its exact counts per ten minutes and their spread, its lengths by their quantiles (fixed seed).

Engines: Llama-2-70B as measured on 4 H100 each (Splitwise's table), which stand in for real ones: a replay by their
measured laws in virtual time, in which an engine takes --start-s to start and a second to change its role. Each minute
the very rules of the product decide (controlplane.domain: demand, size_search, scaling): the floor by the forecast rate
and a replay of the last requests, pressure above it, one fewer after a quiet time. Clairvoyant: for each five minutes
the fewest engines that keep the objectives on just those requests, there when they begin. --quick: the conversation.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bench._elastic import ROLES, Played, Seen, Site, Wish
from bench.sizing import SLO, TRACES, TRANSFER_MS, azure, engines
from controlplane.domain import demand, scaling, size_search
from controlplane.domain.replay import Engines, Trace
from controlplane.domain.scaling import Lane, Served
from controlplane.domain.sizing import Demand, Offer, most_batch
from workers.contract import Role

GPU, TP, MOST = "h100-80gb", 4, 12  # engines of a role at most
STATIC = (1, 2, 4)
QUIET_S, FRESH_S, LEVEL = 600.0, 600.0, 0.95
LAST, FEWEST = 1500, 20  # requests that a size is found by
CLAIRVOYANT_S = 300.0
CLIENT, WINDOW_S = "m-mid/22", 600
BEGIN_S, END_S = 5 * 86400 + 6 * 3600 + 1800, 5 * 86400 + 9 * 3600 + 1800  # day 5, 6:30 to 9:30
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
Decide = Callable[[Seen], Wish]


@dataclass(slots=True)
class Autoscaler:
    """The product's rules over what a site shows. `forecast` off: pressure and quiet alone."""

    trace: Trace
    offer: Offer
    forecast: bool = True
    minutes: list[int] = field(default_factory=list)
    floor: dict[Role, int] | None = None
    sized_for: float = 0.0
    sized_at: float = -FRESH_S
    quiet_since: dict[Role, float] = field(default_factory=dict)

    def __call__(self, seen: Seen) -> Wish:
        self.minutes.append(seen.arrivals)
        if self.forecast:
            self._size(seen.now_s)
        served = Served(seen.ttft_ms, seen.itl_ms, SLO.ttft_ms, SLO.itl_ms)
        full = scaling.is_full(seen.load[Role.DECODE])
        wish = {}
        for role in ROLES:
            told = scaling.wanted(self._lane(role, seen), served, quiet_s=QUIET_S, decode_full=full)
            if told.fewer_would_do:
                self.quiet_since.setdefault(role, seen.now_s)
            else:
                self.quiet_since.pop(role, None)
            wish[role] = told.count
        return wish

    def _lane(self, role: Role, seen: Seen) -> Lane:
        quiet_s = seen.now_s - self.quiet_since.get(role, seen.now_s)
        floor = None if self.floor is None else self.floor[role]
        return Lane(
            role, seen.count[role], seen.ready[role], least=1, most=MOST, load=seen.load[role], floor=floor,
            quiet_s=quiet_s,
        )  # fmt: skip

    def _size(self, now_s: float) -> None:
        """As scaling.floors: anew after ten minutes, or once the rate has left the one that was sized for."""
        rate = demand.coming(self.minutes, level=LEVEL).rate
        if now_s - self.sized_at < FRESH_S and not demand.has_left(self.sized_for, rate):
            return
        past = self.trace.between(0.0, now_s)
        past = Trace(past.at_ms[-LAST:], past.isl[-LAST:], past.osl[-LAST:])
        if len(past) < FEWEST or rate <= 0:
            return
        judged = size_search.fewest(
            past.at_rate(rate), [self.offer], SLO, apart=True, transfer_ms_per_token=TRANSFER_MS
        )  # fmt: skip
        self.sized_for, self.sized_at = rate, now_s
        if judged is not None and judged.size.prefill is not None:
            self.floor = {Role.PREFILL: judged.size.prefill.count, Role.DECODE: judged.size.decode.count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one trace")
    parser.add_argument("--start-s", type=float, default=60.0)
    options = parser.parse_args()
    offer = next(one for one in engines() if (one.gpu, one.tp) == (GPU, TP))
    offer = Offer(offer.speed, TP * MOST * 2)
    result: dict[str, float] = {"start_s": options.start_s}
    for name in ("conv",) if options.quick else ("conv", "code"):
        result |= compare(name, azure(TRACES / f"azure_llm2023_{name}.csv.gz"), [], offer, options.start_s)
    if not options.quick:
        result |= compare("servegen", *servegen(), offer, options.start_s)
    print("RESULT", json.dumps(result), flush=True)


def servegen() -> tuple[Trace, list[int]]:
    """A morning of one client, and its requests a minute before that."""
    draw = np.random.default_rng(1)
    counts, spread = np.zeros(END_S // WINDOW_S, np.int64), np.ones(END_S // WINDOW_S)
    for row in _rows("servegen_clients_10min.csv.gz"):
        place = int(row["t_s"]) // WINDOW_S
        if place < len(counts):
            counts[place], spread[place] = int(row["requests"]), float(row["cv"])
    gaps = [draw.gamma(1.0 / cv**2, size=number + 1) for number, cv in zip(counts, spread, strict=True)]
    at = np.concatenate(
        [WINDOW_S * (place + np.cumsum(gap)[:-1] / gap.sum()) for place, gap in enumerate(gaps) if len(gap) > 1]
    )
    minutes = np.bincount((at[at < BEGIN_S] // 60).astype(np.int64), minlength=BEGIN_S // 60)
    mine = at[at >= BEGIN_S] - BEGIN_S
    lengths = [row for row in _rows("servegen_clients_lengths_6h.csv.gz") if int(row["t_s"]) <= BEGIN_S][-1]
    isl, osl = (
        np.interp(draw.random(len(mine)), QUANTILES, [float(lengths[f"{what}_p{100 * q:.0f}"]) for q in QUANTILES])
        for what in ("isl", "osl")
    )
    return Trace.of(mine.tolist(), isl.astype(int).tolist(), osl.astype(int).tolist()), minutes.tolist()


def _rows(name: str) -> list[dict[str, str]]:
    with gzip.open(TRACES / name, "rt", newline="") as file:
        return [row for row in csv.DictReader(file) if row["client"] == CLIENT]


def compare(name: str, trace: Trace, past: list[int], offer: Offer, start_s: float) -> dict[str, float]:
    """`past`: requests a minute before it."""
    about = Demand.of(trace)
    print(
        f"\n{name}: {len(trace)} requests in {trace.at_ms[-1] / 60000:.0f} min, ISL {about.isl:.0f}, "
        f"OSL {about.osl:.0f}; engines of {TP} {GPU}, {start_s:.0f} s to start; within TTFT {SLO.ttft_ms:.0f} ms "
        f"and ITL {SLO.itl_ms:.0f} ms"
    )
    print(f"  {'':28}{'within':>9}{'TTFT p95':>11}{'ITL p95':>10}{'GPU-hours':>11}{'starts':>8}{'flips':>7}")
    result = {}
    for label, first, decide in policies(trace, past, offer):
        began = time.perf_counter()
        quick_start = start_s if label != "clairvoyant" else 0.0
        played = Site(trace, kinds(offer, about), TP, quick_start, transfer_ms_per_token=TRANSFER_MS).play(
            first, decide
        )
        print(line(label, played), f" ({time.perf_counter() - began:.1f} s)")
        key = f"{name}_{label.replace(' ', '_').replace(',', '')}"
        result |= {f"{key}_met": round(played.met(SLO.ttft_ms, SLO.itl_ms), 4)}
        result |= {f"{key}_gpu_hours": round(played.gpu_hours, 2)}
    return result


def kinds(offer: Offer, about: Demand) -> dict[Role, Engines]:
    batch = most_batch(offer.speed, about, SLO)
    return {
        Role.PREFILL: Engines(offer.speed, 1, offer.speed.knee.tokens, offer.speed.max_num_seqs),
        Role.DECODE: Engines(offer.speed, 1, offer.speed.knee.tokens, batch),
    }


def policies(trace: Trace, past: list[int], offer: Offer) -> list[tuple[str, Wish, Decide]]:
    one = dict.fromkeys(ROLES, 1)
    found: list[tuple[str, Wish, Decide]] = [
        (f"{number}P{number}D", fixed, lambda _, fixed=fixed: fixed)  # type: ignore[misc]
        for number in STATIC
        for fixed in [dict.fromkeys(ROLES, number)]
    ]
    schedule = foreseen(trace, offer)
    found += [
        ("autoscaler", one, Autoscaler(trace, offer, minutes=past)),
        ("autoscaler reactive only", one, Autoscaler(trace, offer, forecast=False)),
        ("clairvoyant", schedule[0], lambda seen: schedule[min(int(seen.now_s / CLAIRVOYANT_S), len(schedule) - 1)]),
    ]
    return found


def foreseen(trace: Trace, offer: Offer) -> list[Wish]:
    """By the five minutes: the fewest that keep the objectives; where none would, as many as there are."""
    number = int(np.ceil((trace.at_ms[-1] + 1.0) / 1000.0 / CLAIRVOYANT_S))
    wishes = []
    for place in range(number):
        part = trace.between(place * CLAIRVOYANT_S, (place + 1) * CLAIRVOYANT_S)
        judged = None
        if len(part) >= 2:
            judged = size_search.fewest(part, [offer], SLO, apart=True, transfer_ms_per_token=TRANSFER_MS)
        size = judged.size if judged else None
        prefill = size.prefill.count if size and size.prefill else MOST
        wishes.append({Role.PREFILL: prefill, Role.DECODE: size.decode.count if size else MOST})
    return wishes


def line(label: str, played: Played) -> str:
    ttft, itl = (float(np.quantile(times, 0.95)) for times in (played.ttft_ms, played.itl_ms))
    return (
        f"  {label:28}{played.met(SLO.ttft_ms, SLO.itl_ms):9.3f}{ttft:11.0f}{itl:10.1f}{played.gpu_hours:11.2f}"
        f"{played.starts:8}{played.flips:7}"
    )


if __name__ == "__main__":
    main()
