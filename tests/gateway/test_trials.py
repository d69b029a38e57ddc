"""How an engine is tried: whom with, what it is asked, and what counts as an answer. Against stand-in engines."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.gateway.trials import Pace
from tests.gateway.conftest import MakePlace, Place, eventually
from tests.standin_fabric import Fabric


async def test_a_pair_that_does_not_understand_each_other_fails(pair: Place) -> None:
    """Blocks of one fabric mean nothing in another."""
    new = await pair.engine(Fabric("of another kind"))
    pair.show(prefill=(1,), decode=(2, new))
    await eventually(lambda: pair.told)
    assert pair.told[0][:3] == (new, 1, False)
    assert "e1" in pair.told[0][3] and "unknown remote blocks" in pair.told[0][3]


async def test_a_trial_is_bounded_in_time(make_place: MakePlace) -> None:
    place = await make_place(limit_s=0.1)
    ids = [await place.engine() for _ in range(2)]
    place.show(prefill=(ids[0],), decode=(ids[1],))
    await eventually(lambda: len(place.told) == 2)
    new = await place.engine()
    place.engines[new].act.hang = True
    place.show(prefill=(1,), decode=(2, new))
    await eventually(lambda: len(place.told) == 3)
    assert place.told[2][:3] == (new, 1, False) and "in time" in place.told[2][3]
    await eventually(lambda: place.engines[new].aborted)


async def test_a_partner_at_fault_keeps_no_other_engine_out(pair: Place) -> None:
    second, broken, new = [await pair.engine() for _ in range(3)]
    pair.engines[broken].act.status = 500
    pair.show(prefill=(1, second, broken), decode=(2,))
    await eventually(lambda: pair.used.prefill == (1, second))
    pair.show(prefill=(1, second, broken), decode=(2, new))
    await eventually(lambda: pair.used.decode == (2, new))
    assert pair.used.prefill == (1, second)
    assert {finding[0] for finding in pair.told if not finding[2]} == {broken}


async def test_a_partner_that_hangs_keeps_a_new_engine_out_for_a_moment_only(make_place: MakePlace) -> None:
    place = await make_place()
    ids = [await place.engine() for _ in range(3)]
    place.show(prefill=tuple(ids[:2]), decode=(ids[2],))
    await eventually(lambda: len(place.told) == 3)
    place.engines[1].act.hang = True
    new = await place.engine()
    place.show(prefill=(1, 2), decode=(3, new))
    await asyncio.sleep(0.1)
    assert place.used.decode == (3,)
    await eventually(lambda: place.used.decode == (3, new), 4.0)


async def test_no_trial_is_recorded_or_counted_as_demand(pair: Place) -> None:
    new = await pair.engine()
    pair.show(prefill=(1,), decode=(2, new))
    await eventually(lambda: pair.told)
    assert not list(pair.gateway.recorder._new)
    assert not pair.gateway.recorder.demand.take(0.0)
    assert not any(pair.gateway.engines.load.values())


@pytest.mark.parametrize("role", ["prefill", "decode", "aggregated"])
async def test_an_engine_without_partners_is_asked_for_one_token(make_place: MakePlace, role: str) -> None:
    place = await make_place()
    one = await place.engine()
    place.show(**{role: (one,)})
    await eventually(lambda: place.told == [(one, 1, True, "")])
    (asked,) = place.tried(one)
    assert asked.body["max_tokens"] == 1
    assert "kv_transfer_params" not in asked.body


async def test_prompts_fill_blocks_and_are_never_the_same(pair: Place) -> None:
    """What decode has in its prefix cache it would not pull."""
    new = [await pair.engine() for _ in range(3)]
    pair.show(prefill=(1,), decode=(2, *new))
    await eventually(lambda: len(pair.used.decode) == 4)
    prompts = [seen.body["prompt"] for seen in pair.tried(1)]
    assert len({prompt[:8] for prompt in prompts}) == 3
    assert all(len(prompt.split()) > 2 * 16 for prompt in prompts)


async def test_of_many_partners_a_bounded_number_is_waited_for_and_the_rest_follows(make_place: MakePlace) -> None:
    pace = Pace(tick_s=0.01, partners=3, of_each=2, at_once=4)
    place = await make_place(pace)
    prefill = [await place.engine() for _ in range(7)]
    place.show(prefill=tuple(prefill), aggregated=(await place.engine(),))
    await eventually(lambda: len(place.told) == 8)
    new = await place.engine()
    most, seen = 0, 0
    for engine in place.engines.values():
        engine.act.first_s = 0.03
    place.show(prefill=tuple(prefill), aggregated=(8,), decode=(new,))
    assert place.used.decode == ()
    while not place.used.decode:
        most = max(most, sum(place.engines[id].running for id in prefill) + place.engines[new].running)
        seen = len(place.tried(new))
        await asyncio.sleep(0.002)
    assert (most, seen) == (2, 3)
    await eventually(lambda: len(place.tried(new)) == 7)
    assert {len([s for s in place.tried(id) if "kv_transfer_params" in s.body]) for id in prefill} == {1}


async def test_an_answer_that_says_it_failed_is_no_answer(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.status = 200
    pair.engines[new].act.status_body = b'{"choices":[{"index":0,"text":"","finish_reason":"error"}]}'
    pair.show(prefill=(1,), decode=(2, new))
    await eventually(lambda: pair.told)
    assert pair.told[0][:3] == (new, 1, False)


async def test_an_engine_that_cannot_take_such_a_prompt_is_not_held_against_it(pair: Place) -> None:
    """Its context may be shorter than two blocks."""
    new = await pair.engine()
    pair.engines[new].act.status = 400
    pair.show(prefill=(1, new), decode=(2,))
    await eventually(lambda: pair.used.prefill == (1, new))


async def test_an_engine_with_nothing_to_hand_over_is_tried_as_clients_would_use_it(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.params = None
    pair.show(prefill=(1, new), decode=(2,))
    await eventually(lambda: pair.used.prefill == (1, new))
    assert "kv_transfer_params" not in pair.tried(2)[0].body


async def test_what_leaves_while_it_is_tried_has_not_failed(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.hang = True
    pair.show(prefill=(1,), decode=(2, new))
    await eventually(lambda: pair.engines[new].running)
    pair.show(prefill=(1,), decode=(2,))
    await pair.engines[new].stop()
    await asyncio.sleep(0.1)
    assert not pair.told
