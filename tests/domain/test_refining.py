from __future__ import annotations

import pytest

from controlplane.domain.fitting import speed
from controlplane.domain.profiles import DecodePoint, PrefillPoint, Profile, Source, Speed
from controlplane.domain.refining import FEWEST, Live, refine

SIZES = (64, 128, 256, 512, 1024, 2048)


@pytest.fixture
def measured() -> Speed:
    """10 ms and 0.1 ms a token of prompt; 20 ms and 0.5 ms a sequence."""
    prefill = tuple(PrefillPoint(n, 1, n, 10.0 + 0.1 * n) for n in SIZES)
    decode = tuple(DecodePoint(batch, 1000, 20.0 + 0.5 * batch) for batch in (1, 2, 4, 8, 16))
    return speed(Profile("llama", "H100", 1, Source.MEASURED, prefill, decode, kv_tokens=100_000, max_num_seqs=64))


def seen(speed: Speed, prompts: float, tokens: float, number: int = FEWEST) -> Live:
    law, decode, budget = speed.prefill.law, speed.decode.law, speed.knee.tokens
    return Live(
        [(100.0 + n, prompts * law.prompt_ms(100.0 + n, budget)) for n in range(number)],
        [(4.0, 1000.0, tokens * decode.itl_ms(4.0, 1000.0)) for _ in range(number)],
    )


def test_what_live_traffic_takes_is_what_the_laws_say_then(measured: Speed) -> None:
    found = refine(measured, seen(measured, 0.8, 1.25))
    assert (found.prefill, found.decode) == (pytest.approx(0.8), pytest.approx(1.25))
    assert found.speed.decode.law.itl_ms(8, 1000) == pytest.approx(1.25 * measured.decode.law.itl_ms(8, 1000))
    assert found.speed.prefill.law.prompt_ms(700, 512) == pytest.approx(0.8 * measured.prefill.law.prompt_ms(700, 512))
    assert found.speed.knee.plateau == pytest.approx(measured.knee.plateau / 0.8)
    assert "0.80 times" in found.notes[0]


def test_prompts_that_waited_do_not_make_the_engine_slow(measured: Speed) -> None:
    live = seen(measured, 1.0, 1.0)
    waited = [(tokens, took * 9) for tokens, took in live.prompts]
    assert refine(measured, Live([*live.prompts, *waited], ())).prefill == pytest.approx(1.0, abs=0.01)


def test_too_little_changes_nothing_and_too_far_off_asks_for_a_measurement(measured: Speed) -> None:
    few = refine(measured, seen(measured, 0.8, 1.2, number=FEWEST - 1))
    assert (few.speed.decode.law, few.notes) == (measured.decode.law, ())
    far = refine(measured, seen(measured, 1.0, 5.0))
    assert far.decode is None
    assert far.speed.decode.law == measured.decode.law
    assert "measure it anew" in far.notes[1]
