"""New engines are tried before clients are sent to them, as long as others serve. Against stand-in engines."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from controlplane.domain.routing import Ready
from controlplane.gateway.keys import hash_of
from controlplane.gateway.limits import Limits
from controlplane.gateway.metrics import Metrics
from controlplane.gateway.probing import Prober
from controlplane.gateway.records import Recorder
from controlplane.gateway.run import end, listen
from controlplane.gateway.server import Gateway
from controlplane.gateway.table import Engine, Key, Served, Table
from controlplane.gateway.trials import Pace
from controlplane.gateway.upstream import Bounds
from controlplane.gateway.warming import Warming
from tests.gateway.conftest import KEY, PROMPT, eventually, nobody
from tests.standin_engine import Fabric, Seen, Standin

ROLES = ("prefill", "decode", "aggregated")
QUICK = Pace(tick_s=0.02, retry_s=0.05, retry_most_s=0.1, hurry_s=0.3)


@dataclass
class Place:
    """A gateway whose table is shown to it by the test. An engine's id is its place in `engines`."""

    warming: Warming
    gateway: Gateway
    client: httpx.AsyncClient
    told: list[tuple[int, int, bool, str]] = field(default_factory=list)
    deaf: bool = False  # it cannot be told
    fabric: Fabric = field(default_factory=Fabric)
    engines: dict[int, Standin] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    generation: dict[int, int] = field(default_factory=dict)

    async def engine(self, fabric: Fabric | None = None) -> int:
        id = len(self.engines) + 1
        standin = Standin(f"e{id}", f"key-{id}", fabric=fabric or self.fabric)
        self.engines[id] = await standin.start()
        return id

    def show(
        self,
        *,
        prefill: tuple[int, ...] = (),
        decode: tuple[int, ...] = (),
        aggregated: tuple[int, ...] = (),
        overflow: tuple[int, ...] = (),
        alike: bool = False,
        pair: bool = False,
    ) -> None:
        """As the next table that is read shows it."""
        ready = Ready(prefill, decode, aggregated, overflow, alike=alike)
        served = Served("tiny", created=1, block_tokens=16, ready=ready, pooled=pair, pair=pair)
        rows = {id: self._row(id) for id in (*prefill, *decode, *aggregated, *overflow)}
        self.warming.take(Table({hash_of(KEY): Key(id=1)}, {"tiny": served, "small": served}, rows, read_at=1.0))

    def tell(self, partition: int, generation: int, passed: bool, why: str) -> None:
        if self.deaf:
            raise RuntimeError("nobody hears it")
        self.told.append((partition, generation, passed, why))

    def _row(self, id: int) -> Engine:
        standin = self.engines[id]
        row = Engine.at(
            id, standin.name, standin.url, standin.key,
            generation=self.generation.get(id, 1), since=self.since.get(id, 1.0),
        )  # fmt: skip
        assert row is not None
        return row

    @property
    def used(self) -> Ready:
        served = self.warming.table.served
        assert served["small"] is served["tiny"]
        return served["tiny"].ready

    def tried(self, id: int) -> list[Seen]:
        return [seen for seen in self.engines[id].served if seen.headers.get("x-request-id", "").startswith("warm-")]

    async def complete(self) -> httpx.Response:
        return await self.client.post("/v1/completions", json={"model": "tiny", "prompt": PROMPT, "max_tokens": 2})


MakePlace = Callable[..., Awaitable[Place]]


@pytest.fixture
async def make_place() -> AsyncIterator[MakePlace]:
    made: list[tuple[Place, Any, Any, asyncio.Task[None]]] = []

    async def make(pace: Pace = QUICK, limit_s: float = 5.0) -> Place:
        metrics = Metrics()
        warming = Warming(Prober(Bounds(), limit_s), lambda *finding: place.tell(*finding), metrics, pace)
        gateway = Gateway(lambda: warming.table, Recorder(metrics), metrics, Limits(), nobody)
        protocol = gateway.server()
        listener = await listen(protocol, "127.0.0.1", 0, gateway.limits)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
        place = Place(warming, gateway, client)
        made.append((place, listener, protocol, asyncio.create_task(warming.run())))
        return place

    yield make
    for place, listener, protocol, running in made:
        running.cancel()
        place.warming.close()
        await place.client.aclose()
        await end(place.gateway, listener, protocol, drain_s=0.0)
        for engine in place.engines.values():
            await engine.stop()
    await asyncio.sleep(0.01)


@pytest.fixture
async def pair(make_place: MakePlace) -> Place:
    """Engine 1 prefills, engine 2 decodes; both have been tried."""
    place = await make_place()
    one, two = await place.engine(), await place.engine()
    place.show(prefill=(one,), decode=(two,))
    await eventually(lambda: len(place.told) == 2)
    place.told.clear()
    for engine in place.engines.values():
        engine.served.clear()
    return place


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


@pytest.mark.parametrize("role", ROLES)
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
