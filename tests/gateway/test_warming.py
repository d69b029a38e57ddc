"""New engines are tried before clients are sent to them, as long as others serve. Against stand-in engines."""

from __future__ import annotations

import asyncio
import itertools

from controlplane.domain.routing import Ready
from controlplane.gateway.trials import Pace
from tests.gateway.conftest import MakePlace, Place, eventually
from tests.standin_engine import Standin
from tests.standin_fabric import Fabric


async def test_engines_that_were_there_before_the_gateway_are_used_at_once_and_tried_beside(
    make_place: MakePlace,
) -> None:
    place = await make_place()
    ids = [await place.engine() for _ in range(4)]
    place.show(prefill=tuple(ids[:2]), decode=tuple(ids[2:]))
    assert place.used == Ready((1, 2), (3, 4))
    await eventually(lambda: len(place.told) == 4)
    assert set(place.told) == {(id, 1, True, "") for id in ids}


async def test_an_engine_in_a_lent_slot_is_tried_by_itself_before_anything_overflows_to_it(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.first_s = 0.2
    pair.show(prefill=(1,), decode=(2,), overflow=(new,))
    assert pair.used == Ready((1,), (2,))
    await eventually(lambda: pair.used.overflow == (new,))
    assert pair.told == [(new, 1, True, "")]
    (asked,) = pair.tried(new)
    assert "kv_transfer_params" not in asked.body


async def test_a_new_pair_is_warmed_before_clients_use_it(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.first_s = 0.2

    pair.show(prefill=(1,), decode=(2, new))

    assert pair.used.decode == (2,)
    replies = await asyncio.gather(*(pair.complete() for _ in range(6)))
    assert {reply.headers["x-forebay-decode"] for reply in replies} == {"e2"}
    await eventually(lambda: pair.used.decode == (2, new))
    (asked,) = pair.tried(new)
    assert asked.body["kv_transfer_params"]["do_remote_prefill"]
    (prefilled,) = pair.tried(1)
    assert prefilled.body["kv_transfer_params"]["do_remote_decode"]
    assert prefilled.headers["x-request-id"].endswith("-p") and asked.headers["x-request-id"].endswith("-d")
    assert not pair.tried(2)
    assert pair.told == [(new, 1, True, "")]


async def test_a_healthy_engine_is_in_use_soon(pair: Place) -> None:
    new = await pair.engine()
    pair.show(prefill=(1, new), decode=(2,))
    assert pair.used.prefill == (1,)
    await eventually(lambda: pair.used.prefill == (1, new), 3.0)  # 0.02 s on an idle machine


async def test_one_that_fails_stays_out_while_others_serve_and_comes_in_once_it_answers(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.status = 500
    pair.show(prefill=(1,), decode=(2, new))

    await eventually(lambda: len(pair.told) >= 3)

    assert all(finding[:3] == (new, 1, False) and "answered 500" in finding[3] for finding in pair.told)
    assert pair.used.decode == (2,)
    assert (await pair.complete()).headers["x-forebay-decode"] == "e2"
    pair.engines[new].act.status = 0
    await eventually(lambda: pair.used.decode == (2, new))
    assert pair.told[-1] == (new, 1, True, "")
    text = pair.gateway.metrics.text().decode()
    assert 'forebay_gateway_verifications_total{deployment="tiny",outcome="failed"}' in text
    assert "forebay_gateway_engines_held 0.0" in text


async def test_nobody_waits_for_a_trial_when_no_other_engine_is_there(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.first_s = 0.1
    pair.show(prefill=(1,), decode=(new,))
    assert pair.used.decode == (new,)
    assert (await pair.complete()).status_code == 200
    await eventually(lambda: (new, 1, True, "") in pair.told)


async def test_one_that_waits_is_used_the_moment_the_last_other_leaves(pair: Place) -> None:
    new = await pair.engine()
    pair.engines[new].act.first_s = 1.0
    pair.show(prefill=(1,), decode=(2, new))
    assert pair.used.decode == (2,)
    pair.show(prefill=(1,), decode=(new,))
    assert pair.used.decode == (new,)


async def test_even_one_that_failed_serves_rather_than_nobody(pair: Place) -> None:
    new = await pair.engine(Fabric("of another kind"))
    pair.show(prefill=(1,), decode=(2, new))
    await eventually(lambda: pair.told)
    assert pair.used.decode == (2,)
    pair.show(prefill=(1,), decode=(new,))
    assert pair.used.decode == (new,)


async def test_a_relabelled_engine_is_tried_in_its_new_role_and_not_again_in_one_that_it_had(pair: Place) -> None:
    second = await pair.engine()
    pair.show(prefill=(1,), decode=(2, second))
    await eventually(lambda: pair.used.decode == (2, second))

    pair.generation[second] = 2
    pair.show(prefill=(1, second), decode=(2,))
    assert pair.used == Ready((1,), (2,))
    await eventually(lambda: pair.used == Ready((1, second), (2,)))
    await eventually(lambda: pair.told[-1] == (second, 2, True, ""))
    tries = [len(pair.tried(id)) for id in pair.engines]

    pair.generation[second] = 3
    pair.show(prefill=(1,), decode=(2,))  # for a moment it confirms neither
    pair.show(prefill=(1,), decode=(2, second))
    assert pair.used.decode == (2, second), "its pair with engine 1 has passed before"
    assert pair.told[-1] == (second, 3, True, "")
    await asyncio.sleep(0.1)
    assert [len(pair.tried(id)) for id in pair.engines] == tries


async def test_a_process_that_was_replaced_is_tried_anew(pair: Place) -> None:
    second = await pair.engine()
    pair.show(prefill=(1,), decode=(2, second))
    await eventually(lambda: pair.used.decode == (2, second))
    pair.since[second] = 2.0
    pair.show(prefill=(1,), decode=(2, second))
    assert pair.used.decode == (2,)
    await eventually(lambda: pair.used.decode == (2, second))
    assert len(pair.tried(second)) == 2


async def test_a_new_generation_of_the_same_process_is_told_without_another_trial(pair: Place) -> None:
    pair.generation[2] = 9
    pair.show(prefill=(1,), decode=(2,))
    assert pair.told == [(2, 9, True, "")]
    assert not pair.tried(2)


async def test_engines_that_left_long_ago_are_forgotten(make_place: MakePlace) -> None:
    place = await make_place(Pace(tick_s=0.02, forget_s=0.05))
    one, two, other = [await place.engine() for _ in range(3)]
    for since in itertools.count(1):
        place.since[two] = float(since)
        place.show(prefill=(one,), decode=(two,), aggregated=(other,))
        await eventually(lambda: place.used.decode)
        await asyncio.sleep(0.03)
        if since == 6:
            break
    assert len(place.warming._seats) <= 5
    assert len(place.warming._trials._trials) <= 5


async def test_a_fault_in_warming_keeps_no_engine_from_clients(make_place: MakePlace) -> None:
    place = await make_place()
    one, two, new = [await place.engine() for _ in range(3)]
    place.show(prefill=(one,), decode=(two,))
    await eventually(lambda: len(place.told) == 2)
    place.deaf = True
    place.generation[two] = 2
    place.show(prefill=(one,), decode=(two, new))
    assert place.used.decode == (two, new)


async def test_engines_that_are_alike_rehearse_their_other_roles_so_that_a_flip_waits_for_no_handshake(
    make_place: MakePlace,
) -> None:
    place = await make_place()
    one, two, three = [await place.engine() for _ in range(3)]
    place.show(prefill=(one,), decode=(two, three), alike=True)
    six_ways = 6  # each of three engines with each of the two others

    def asked_of() -> int:
        return sum(prefills(engine) for engine in place.engines.values())

    await eventually(lambda: asked_of() >= six_ways)
    await asyncio.sleep(0.1)
    assert asked_of() == six_ways, "each pair once, in each direction"

    place.told.clear()
    place.generation[two] = 2
    place.show(prefill=(one, two), decode=(three,), alike=True)
    await eventually(lambda: (two, 2, True, "") in place.told)
    assert place.used.prefill == (one, two)
    assert asked_of() == six_ways, "nothing had to be tried"


async def test_engines_that_are_not_alike_rehearse_nothing(make_place: MakePlace) -> None:
    place = await make_place()
    one, two = [await place.engine() for _ in range(2)]
    place.show(prefill=(one,), decode=(two,))
    await eventually(lambda: place.told)
    await asyncio.sleep(0.2)
    assert prefills(place.engines[two]) == 0


def prefills(engine: Standin) -> int:
    return sum(seen.body.get("kv_transfer_params", {}).get("do_remote_decode", False) for seen in engine.served)
