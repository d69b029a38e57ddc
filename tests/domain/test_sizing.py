"""Laws fitted to what was measured, requests replayed through them, and the sizes that come of it."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import queueing, replay, roofline, saturation, size_search, sizing
from controlplane.domain.fitting import fit_decode, fit_prefill, kv_capacity, speed
from controlplane.domain.profiles import DecodeLaw, DecodePoint, PrefillPoint, Profile, ProfileError, Source, Speed
from controlplane.domain.replay import Engines, Trace
from controlplane.domain.sizing import Demand, Group, Offer, Size, Slo
from controlplane.planning.profile_tables import read
from workers.contract import Role

A, B, C, FLOOR = 5.0, 0.02, 1e-6, 12.0
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
SLO = Slo(ttft_ms=600.0, itl_ms=40.0, share=0.95)


def took(tokens: int, context: int) -> float:
    return max(FLOOR, A + B * tokens + C * tokens * context)


def made(noise: float = 0.0, seed: int = 1) -> Profile:
    dice = np.random.default_rng(seed)
    prefill = tuple(
        PrefillPoint(n, 1, n, took(n, n) * (1 + noise * dice.standard_normal())) for n in TOKENS
    )  # fmt: skip
    decode = tuple(
        DecodePoint(
            batch, context, (10.0 + 0.1 * batch + 1e-4 * batch * context) * (1 + noise * dice.standard_normal())
        )
        for batch in (1, 8, 32, 64)
        for context in (256, 1024, 4096)
    )
    return Profile("m", "g", 1, Source.MEASURED, prefill, decode, kv_tokens=200_000, max_num_seqs=64)


@pytest.fixture(scope="module")
def fast() -> Speed:
    return speed(made())


def poisson(rate: float, seconds: float, seed: int = 3, isl: int = 500, osl: int = 50) -> Trace:
    dice = np.random.default_rng(seed)
    count = dice.poisson(rate * seconds)
    at = np.sort(dice.uniform(0, seconds, count))
    return Trace.of(at, dice.integers(isl // 2, isl * 3 // 2, count), dice.integers(1, osl * 2, count))


def test_the_laws_are_found_again_and_a_point_far_off_is_left_out() -> None:
    profile = made()
    fit = fit_prefill(profile.prefill)
    assert (fit.law.a, fit.law.b, fit.law.floor_ms) == pytest.approx((A, B, FLOOR), rel=0.03)
    assert fit.worst_error < 0.03 and not fit.left_out
    decode = fit_decode(profile.decode).law
    assert (decode.o, decode.u, decode.v) == pytest.approx((10.0, 0.1, 1e-4), rel=1e-3)
    broken = (*profile.prefill, PrefillPoint(16_384, 4, 4096, 1.0))
    assert fit_prefill(broken).left_out == (len(broken) - 1,)


@given(st.floats(0.0, 0.05), st.integers(0, 1000))
def test_noise_moves_the_knee_little_and_never_breaks_a_fit(noise: float, seed: int) -> None:
    found = speed(made(noise, seed))
    assert 0 < found.knee.tokens <= TOKENS[-1] and found.knee.plateau > 0
    assert found.decode.law.most(1e9, 1000) > found.decode.law.most(20.0, 1000) >= 0


@pytest.mark.parametrize(
    "points", [(), (PrefillPoint(8, 1, 8, 1.0),), (PrefillPoint(8, 1, 8, 1.0), PrefillPoint(16, 1, 16, math.nan))]
)
def test_points_that_make_no_law_are_refused(points: tuple[PrefillPoint, ...]) -> None:
    with pytest.raises(ProfileError):
        fit_prefill(points)


def test_a_profile_is_kept_as_a_dict_and_room_for_kv_is_never_negative() -> None:
    assert Profile.from_dict(made().to_dict()) == made()
    with pytest.raises(ProfileError):
        Profile.from_dict({"model": "m"})
    assert kv_capacity(memory_bytes=1, tp=1, weights_bytes=9, activation_bytes=0, kv_bytes_per_token=1) == 0


def test_one_request_alone_takes_what_the_laws_say(fast: Speed) -> None:
    one = Trace.of([0.0], [512], [11])
    outcome = replay.aggregated(one, Engines(fast, 1, 8192, 64))
    assert outcome.ttft_ms[0] == pytest.approx(fast.prefill.law.step_ms(512, 512))
    context = 512 + 1 + np.arange(10)
    assert outcome.itl_ms[0] == pytest.approx(np.mean([fast.decode.law.itl_ms(1, c) for c in context]), rel=1e-6)


def test_prompts_in_line_wait_as_the_closed_form_says_under_poisson(fast: Speed) -> None:
    """M/D/1: prompts of one length, one at a time."""
    dice, service = np.random.default_rng(5), fast.prefill.law.step_ms(512, 512)
    at = np.cumsum(dice.exponential(service / 0.6 / 1000.0, 6000))
    trace = Trace.of(at, [512] * 6000, [1] * 6000)
    waits = replay.prefill(trace, Engines(fast, 1, 512, 1)) - trace.at_ms - service
    assert waits.mean() == pytest.approx(queueing.mean_wait(1, 0.6 / service, service, cs2=0.0), rel=0.1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_request_is_served_once_and_more_engines_are_no_slower(fast: Speed, count: int) -> None:
    trace = poisson(8.0, 60.0)
    few, many = (replay.aggregated(trace, Engines(fast, n, 2048, 64)) for n in (count, 2 * count))
    assert len(few.ttft_ms) == len(trace) and (few.ttft_ms > 0).all() and (few.itl_ms >= 0).all()
    assert many.ttft_ms.mean() <= few.ttft_ms.mean() * 1.01 and many.itl_ms.mean() <= few.itl_ms.mean() * 1.01


def test_the_search_finds_the_fewest_that_keep_the_objective_or_says_what_is_missing(fast: Speed) -> None:
    trace = poisson(120.0, 20.0)
    found = size_search.find(trace, [Offer(fast, 16)], SLO)
    best = found.best
    assert best is not None and best.met >= SLO.share and found.wanted is None
    for one in (found.aggregated, found.disaggregated):
        assert one is not None and sizing.judge(trace, one.size, SLO).met == pytest.approx(one.met)
    assert found.aggregated is not None
    group = found.aggregated.size.decode
    if group.count > 1:
        fewer = Size(None, Group(group.offer, group.count - 1, group.budget, group.batch))
        assert sizing.judge(trace, fewer, SLO).met < SLO.share
    short = size_search.find(trace, [Offer(fast, max(1, best.size.gpus - 1))], SLO)
    assert short.best is None and short.wanted is not None and short.wanted.size.missing["g"] >= 1
    assert size_search.find(trace, [Offer(fast, 4)], Slo(1.0, 0.1)).wanted is None


def test_formulas_without_queues_or_spread_ask_for_less_than_bursts_need(fast: Speed) -> None:
    calm = poisson(10.0, 120.0)
    bursts = Trace(np.floor(calm.at_ms / 10_000.0) * 10_000.0 + calm.at_ms % 200.0, calm.isl, calm.osl)
    bursts = Trace.of(bursts.at_ms / 1000.0, bursts.isl, bursts.osl)
    offer, demand = Offer(fast, 64), Demand.of(bursts)
    formula, closed = sizing.dynamo(demand, offer, offer, SLO), sizing.closed_form(Demand.of(calm), offer, offer, SLO)
    assert formula is not None and closed is not None
    found = size_search.find(bursts, [offer], SLO).disaggregated
    assert found is not None and found.met >= SLO.share > sizing.judge(bursts, formula, SLO).met
    assert sizing.judge(calm, closed, SLO).met >= SLO.share, "under Poisson the closed form holds"


def test_the_ratio_is_of_the_engines_that_either_phase_keeps_busy(fast: Speed) -> None:
    demand = Demand.of(poisson(10.0, 120.0))
    found, batch = sizing.ratio(demand, fast, fast, SLO), sizing.most_batch(fast, demand, SLO)
    prompt_s = fast.prefill.law.prompt_ms(demand.isl, fast.knee.tokens) / 1000.0
    answer_s = demand.osl * fast.decode.law.itl_ms(batch, demand.context) / 1000.0
    assert found == pytest.approx((demand.rate_per_s * prompt_s) / (demand.rate_per_s * answer_s / batch))
    busier = replace(demand, rate_per_s=5.0 * demand.rate_per_s)
    assert sizing.ratio(busier, fast, fast, SLO) == pytest.approx(found), "a rate takes more of both"
    assert sizing.ratio(replace(demand, osl=2.0 * demand.osl), fast, fast, SLO) == pytest.approx(found / 2.0)


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=6), st.floats(1.0, 60.0), st.integers(1, 8000))
def test_every_batch_up_to_the_most_keeps_to_the_aim_however_the_law_bends(
    bends: list[float], aim_ms: float, context: int
) -> None:
    sizes = tuple(float(4**place) for place in range(len(bends)))
    law = DecodeLaw(5.0, 0.05, 2e-5, sizes, tuple(bends))
    most = law.most(aim_ms, context)
    assert all(law.itl_ms(batch, context) <= aim_ms + 1e-6 for batch in range(1, min(most, 400) + 1))
    assert law.itl_ms(most + 1, context) > aim_ms - 1e-6
    straight = DecodeLaw(5.0, 0.05, 2e-5, sizes, (1.0,) * len(sizes))
    assert straight.most(aim_ms, context) == DecodeLaw(5.0, 0.05, 2e-5).most(aim_ms, context)


def test_a_step_of_prompts_and_sequences_reads_the_weights_once() -> None:
    """As long as the prompts would take with the sequences' tokens among them, and the contexts besides."""
    engine = speed(made())
    load = saturation.Load(1000, 100, 50.0)
    law = engine.decode.law
    alone = engine.prefill.law.step_ms(1064, 1000 * 1000 / 1064)
    assert saturation.mixed_ms(engine, load, 1000, 64) == pytest.approx(
        alone + law.bend(64) * law.v * 64 * load.context, rel=1e-6
    )
    whole, spread = (saturation.aggregated([engine], load, 4, whole=whole) for whole in (True, False))
    assert whole is not None and spread is not None and whole.per_gpu > 0 and spread.per_gpu > 0


def test_a_roofline_is_a_profile_like_any_other_and_gives_rates() -> None:
    llama = roofline.Weights("m", 70e9, 70e9, 163_840, 80, 8192)
    speeds = [speed(roofline.profile(llama, roofline.Rates("H100", 1979, 3350), tp, 400_000)) for tp in (2, 4, 8)]
    load = saturation.Load(3000, 150, 50.0)
    both, apart = saturation.aggregated(speeds, load, 8), saturation.disaggregated(speeds, load, 8)
    assert both is not None and apart is not None and both.per_gpu > 0 and apart.prefill * apart.prefill_tp < 8
    assert saturation.aggregated(speeds, saturation.Load(3000, 150, 0.01), 8) is None


def test_a_measured_table_becomes_profiles_and_a_bad_row_is_named(tmp_path: Path) -> None:
    head = "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"
    table = tmp_path / "table.csv.gz"
    with gzip.open(table, "wt") as file:
        file.write(head + "m,h100,512,1,128,40,20,4\nm,h100,512,1,128,44,22,4\nm,h100,1024,2,128,90,25,4\n")
    [profile] = read(table)
    assert (profile.gpu, profile.tp, profile.source) == ("h100", 4, Source.IMPORTED)
    assert profile.prefill == (PrefillPoint(512, 1, 512, 42.0), PrefillPoint(2048, 2, 1024, 90.0))
    assert profile.decode[0] == DecodePoint(1, 576, 21.0)
    bad = tmp_path / "bad.csv"
    for row in ("m,h,512,1,128,nan,20,4", "m,h,512,1", "m,h,0,1,128,40,20,4"):
        bad.write_text(head + row + "\n")
        with pytest.raises(ProfileError, match="line 2"):
            read(bad)
    bad.write_text("a,b\n1,2\n")
    with pytest.raises(ProfileError, match="lacks"):
        read(bad)


@given(st.integers(50, 4000), st.integers(5, 500), st.integers(1, 500))
def test_an_engine_serves_the_fewer_the_more_each_takes_and_both_phases_fewer_than_one(
    isl: int, osl: int, more: int
) -> None:
    one = speed(made())
    short, long = (
        Demand.of(Trace.of([0.0, 1.0, 2.0], [isl] * 3, [answer] * 3)) for answer in (osl, osl + more)
    )  # fmt: skip
    rates = {role: sizing.served_per_s(one, role, short, SLO) for role in Role}
    assert all(sizing.served_per_s(one, role, long, SLO) <= rate + 1e-9 for role, rate in rates.items())
    assert rates[Role.AGGREGATED] <= min(rates[Role.PREFILL], rates[Role.DECODE])
    assert rates[Role.PREFILL] > 0


def test_an_engine_that_cannot_keep_the_objectives_serves_none() -> None:
    demand = Demand.of(Trace.of([0.0, 1.0, 2.0], [1000] * 3, [100] * 3))
    one = speed(made())
    assert sizing.served_per_s(one, Role.PREFILL, demand, Slo(1.0, 40.0)) == 0.0
    assert sizing.served_per_s(one, Role.DECODE, demand, Slo(600.0, 1.0)) == 0.0
    assert sizing.served_per_s(one, Role.DECODE, demand, Slo(1.0, 40.0)) > 0.0
