"""How many engines for prefill and for decode, found by replaying a real trace, beside closed forms and Dynamo's
formula; and imported profiles and rooflines beside AIConfigurator's table (_reference.py).

    python -m bench.sizing [--quick]

Traces: the first 36 minutes of an hour of two Azure services; a size is chosen by the first half and judged on the
second, with and without a headroom of 50% in the rate, the same for each rule. Engines: Llama-2-70B as measured on A100
and H100 (Splitwise's table). --quick: one of both traces.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

from bench import _reference as reference
from controlplane.domain import size_search, sizing
from controlplane.domain.fitting import kv_capacity, speed
from controlplane.domain.replay import Trace
from controlplane.domain.sizing import Demand, Judged, Offer, Size, Slo
from controlplane.planning.profile_tables import read

Rule = Callable[[Demand, Offer, Offer, Slo], Size | None]
TRACES = Path(__file__).parents[2] / "shared" / "traces"
SLO = Slo(ttft_ms=2000.0, itl_ms=100.0, share=0.95)
MEMORY, WEIGHTS = 80e9, 138e9  # of a GPU; of Llama-2-70B in 16 bits
KV_BYTES = 2 * 80 * 8 * 128 * 2  # of its token
GPUS, LEAST_ROOM = 64, 8192  # GPUs of a kind; tokens of KV
HEADS = ("met first", "met later", "TTFT p95", "ITL p95", "GPU-hours", "price/h")
TRANSFER_MS = KV_BYTES / 25e9 * 1e3  # a token's KV over 200 Gb/s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one trace")
    quick = parser.parse_args().quick
    result: dict[str, float] = {}
    offers = engines()
    for name in ("conv",) if quick else ("conv", "code"):
        for headroom in (1.0, 1.5):
            result |= sizes(name, offers, headroom)
    result |= reference.compare()
    print("RESULT", json.dumps(result), flush=True)


def engines() -> list[Offer]:
    """Those of the table that hold the weights."""
    found = []
    print("engines, from measured tables")
    for profile in read(TRACES / "profile_perf_model.csv.gz"):
        room = kv_capacity(
            memory_bytes=MEMORY, tp=profile.tp, weights_bytes=WEIGHTS, activation_bytes=4e9, kv_bytes_per_token=KV_BYTES
        )
        if profile.model != "llama2-70b" or room < LEAST_ROOM:
            continue
        one = speed(profile, kv_tokens=room)
        found.append(Offer(one, GPUS, gpu_hour=2.0 if "h100" in profile.gpu else 1.0))
        law = one.decode.law
        print(
            f"  {profile.gpu:14} TP{profile.tp}  knee {one.knee.tokens:6} tokens  plateau {one.knee.plateau:8.0f} tok/s"
            f"  ITL {law.o:.1f} + B ({law.u:.3f} + {law.v:.2e} ctx) ms  mean error {one.prefill.mean_error:.1%} / "
            f"{one.decode.mean_error:.1%}  KV {one.kv_tokens} tokens"
        )
    return found


def sizes(name: str, offers: list[Offer], headroom: float) -> dict[str, float]:
    whole = azure(TRACES / f"azure_llm2023_{name}.csv.gz")
    middle = float(whole.at_ms[-1]) / 2000.0
    first, later = whole.between(0.0, middle).faster(headroom), whole.between(middle, 1e9)
    demand = Demand.of(first)
    print(
        f"\n{name}, headroom {headroom - 1:.0%}: {len(first)} requests to choose by, {len(later)} to judge on; "
        f"{demand.rate_per_s:.2f}/s, ISL {demand.isl:.0f}, OSL {demand.osl:.0f}, ca2 {demand.ca2:.1f}; {SLO.share:.0%} "
        f"within TTFT {SLO.ttft_ms:.0f} ms, ITL {SLO.itl_ms:.0f} ms; price of an H100 twice an A100's"
    )
    began = time.perf_counter()
    found = size_search.find(first, offers, SLO, transfer_ms_per_token=TRANSFER_MS)
    took = time.perf_counter() - began
    tried: list[tuple[str, str, Size | None]] = [
        ("disaggregated", "replay, disaggregated", found.disaggregated and found.disaggregated.size),
        ("aggregated", "replay, aggregated", found.aggregated and found.aggregated.size),
        ("closed", "closed form", cheapest(demand, offers, sizing.closed_form)),
        ("dynamo", "Dynamo's formula", cheapest(demand, offers, sizing.dynamo)),
    ]
    hours, mine = float(later.at_ms[-1] - later.at_ms[0]) / 3.6e6, f"{name}{headroom:g}"
    result = {f"{mine}_find_s": round(took, 2), f"{mine}_replays": float(found.replays)}
    print(f"  {'':24}" + "".join(f"{head:>11}" for head in HEADS) + "  size")
    for key, label, size in tried:
        if size is None:
            print(f"  {label:24} none keeps the SLO")
            continue
        before, after = (sizing.judge(part, size, SLO, transfer_ms_per_token=TRANSFER_MS) for part in (first, later))
        print(line(label, before, after, hours))
        result |= {f"{mine}_{key}_met": round(after.met, 4), f"{mine}_{key}_gpu_hours": round(size.gpus * hours, 2)}
    print(f"  found by {found.replays} replays in {took:.1f} s")
    return result


def cheapest(demand: Demand, offers: list[Offer], rule: Rule) -> Size | None:
    """Of all pairs of engines, by this rule."""
    both = [rule(demand, prefill, decode, SLO) for prefill in offers for decode in offers]
    return min((size for size in both if size), key=lambda size: size.price_per_hour, default=None)


def line(label: str, before: Judged, after: Judged, hours: float) -> str:
    return (
        f"  {label:24}{before.met:11.3f}{after.met:11.3f}{after.ttft_ms:11.0f}{after.itl_ms:11.1f}"
        f"{after.size.gpus * hours:11.2f}{after.size.price_per_hour:11.1f}  {after.size.told}"
    )


def azure(path: Path) -> Trace:
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return Trace.of(*([kind(row[name]) for row in rows] for name, kind in (("t_s", float), ("isl", int), ("osl", int))))


if __name__ == "__main__":
    main()
