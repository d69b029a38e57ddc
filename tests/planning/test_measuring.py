"""Measuring an engine whose laws are known, and what becomes of the wish to have one measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEvent
from controlplane.audit.services import Actor
from controlplane.domain.profiles import DecodePoint, PrefillPoint, Profile, Source
from controlplane.domain.sweep import DecodeTry, PrefillTry, Room, decode_tries, prefill_tries
from controlplane.fleet.errors import NotFound, Refused
from controlplane.fleet.models import Partition
from controlplane.gateway.models import RequestRecord
from controlplane.gateway.table import Engine
from controlplane.planning import measurements, profiles
from controlplane.planning.measuring import Asked, Progress, Stopped, measure
from controlplane.planning.meter import Meter, MeterFailed
from controlplane.planning.models import EngineProfile, ProfileRun
from controlplane.planning.profiles import speed_of
from tests.factories import make_deployment, make_node, make_partition, make_ready
from tests.planning.law_engine import LawEngine

ACTOR = Actor.system("test")
ROOM = Room(context=0)


@pytest.fixture
async def engine() -> AsyncIterator[LawEngine]:
    made = LawEngine()
    await made.start()
    yield made
    await made.stop()


def asked(engine: LawEngine, room: Room = ROOM) -> Asked:
    reached = Engine.at(1, "alpha/p0", f"http://127.0.0.1:{engine.port}", engine.key)
    assert reached is not None
    return Asked(reached, "chat", "smollm2", "CPU", 1, "0.32.0", ("--x",), room)


async def test_the_laws_of_an_engine_are_found_by_asking_it(engine: LawEngine) -> None:
    engine.context, engine.b = 400, 0.05
    progress = Progress()
    profile, notes = await measure(asked(engine), progress)
    assert progress.done == progress.steps > 20
    found = speed_of(profile)
    assert found.prefill.law.b + 200 * found.prefill.law.c == pytest.approx(engine.b, rel=0.35)
    assert found.decode.law.itl_ms(4, 200) == pytest.approx(engine.o + 4 * engine.u, rel=0.4)
    assert (profile.kv_tokens, profile.max_num_seqs) == (16 * 1024, 4), "it takes four at once, whatever is sent"
    assert {point.concurrency for point in profile.decode} == {1, 2, 4}
    assert (profile.source, profile.engine_version, profile.flags) == (Source.MEASURED, "0.32.0", ("--x",))
    assert not notes
    prompts = [tuple(body["prompt"]) for body in engine.asked if len(body["prompt"]) >= 16]
    assert len(set(prompts)) == len(prompts), "a prompt that was asked before would be in the prefix cache"


async def test_prompts_of_a_batch_are_measured_as_one_step(engine: LawEngine) -> None:
    meter = Meter(asked(engine).engine, "chat")
    took = [await meter.prefill(PrefillTry(500, 4)) for _ in range(3)]
    meter.close()
    assert min(one for one in took if one) == pytest.approx(engine.a + engine.b * 2000, rel=0.3)


async def test_a_batch_that_is_begun_with_the_prompt_before_it_has_no_time_and_is_left_out(engine: LawEngine) -> None:
    """Both end together, which would come out as a step of no time at all."""
    engine.gather_ms, engine.sequences, engine.context = 30.0, 64, 200
    meter = Meter(asked(engine).engine, "chat")
    assert await meter.prefill(PrefillTry(100, 2)) is None
    assert await meter.prefill(PrefillTry(100)) is not None
    meter.close()
    profile, notes = await measure(asked(engine), Progress())
    assert all(point.batch == 1 and point.step_ms > 5.0 for point in profile.prefill)
    assert any("begun together" in note for note in notes)


async def test_an_engine_that_refuses_or_is_gone_ends_the_measuring_in_words(engine: LawEngine) -> None:
    engine.status = 400
    with pytest.raises(MeterFailed, match=r"alpha/p0: it answered 400.*made to fail"):
        await measure(asked(engine), Progress())
    engine.status = 200
    with pytest.raises(Stopped):
        await measure(asked(engine), Progress(stop=True))
    lost = replace(asked(engine), engine=Engine.at(1, "alpha/p0", "http://127.0.0.1:9", "k"))
    with pytest.raises(MeterFailed, match="alpha/p0: no connection"):
        await measure(lost, Progress())


async def test_what_there_was_no_time_for_or_others_disturbed_is_told(engine: LawEngine) -> None:
    engine.busy, engine.context = 1, 300
    profile, notes = await measure(asked(engine, Room(0, budget=64, sequences=2)), Progress(), idle_s=0.0)
    assert max(point.tokens for point in profile.prefill) == 64
    assert notes and notes[0].startswith("requests of others ran beside (steps: ")
    with pytest.raises(MeterFailed, match="no law"):
        await measure(asked(engine), Progress(), budget_s=0.0)


def test_a_sweep_stays_within_what_the_engine_takes() -> None:
    room = Room(context=2048, kv_tokens=3000, budget=1024, sequences=8)
    tries = prefill_tries(room)
    assert PrefillTry(16) in tries and PrefillTry(1024) in tries and PrefillTry(512, 2) in tries
    assert all(one.tokens <= 1024 and one.batch <= 8 for one in tries)
    loads = decode_tries(room)
    assert DecodeTry(128, 8) in loads and DecodeTry(1280, 2) in loads
    assert all(one.tokens <= 3000 and one.concurrency <= 8 for one in loads)
    assert not prefill_tries(Room(context=8)) and not decode_tries(Room(context=8))
    assert len(prefill_tries(Room(context=1 << 20))) >= 10


@pytest.fixture
def engine_row(db: None) -> Partition:
    return make_ready(make_partition(make_node("alpha"), deployment=make_deployment("chat"), role="aggregated"))


def profile() -> Profile:
    prefill = tuple(PrefillPoint(n, 1, n, 5 + 0.05 * n) for n in (16, 64, 256, 1024))
    decode = tuple(DecodePoint(batch, 100, 10.0 + batch) for batch in (1, 2, 4))
    return Profile("m", "g", 1, Source.MEASURED, prefill, decode)


def test_a_run_is_asked_for_once_begun_once_and_ends_with_a_profile(engine_row: Partition) -> None:
    chat = engine_row.deployment
    assert chat is not None
    run = measurements.ask(chat.pk, actor=ACTOR, reason="new flags")
    assert (run.partition, measurements.wanted()) == (engine_row, run.pk)
    with pytest.raises(Refused, match="being measured"):
        measurements.ask(chat.pk, actor=ACTOR)
    begun = measurements.begin(run.pk)
    assert begun is not None and measurements.begin(run.pk) is None and measurements.wanted() is None
    found = measurements.asked_of(begun)
    assert found is not None and (found.served, found.gpu, found.tp) == ("chat", "Simulated H100 80GB", 1)
    assert measurements.beat(run.pk, Progress(3, 9, "prefill of 64 tokens"))
    assert measurements.finish(run.pk, profile(), ["a note"])
    run.refresh_from_db()
    assert (run.state, run.profile) == ("done", EngineProfile.objects.get())
    assert run.profile.notes == ["a note"] and run.profile.origin == "alpha/p0"
    assert AuditEvent.objects.filter(verb="measured-engine", reason="new flags").exists()
    assert not measurements.finish(run.pk, profile(), []) and not measurements.beat(run.pk, Progress())


def test_a_deployment_that_serves_is_measured_by_force_alone(engine_row: Partition) -> None:
    chat = engine_row.deployment
    assert chat is not None
    RequestRecord.objects.create(
        at=timezone.now(), request_id="r", deployment="chat", kind="chat", outcome="ok", status=200, path="alone",
        prompt_tokens=1, completion_tokens=1, total_ms=10.0,
    )  # fmt: skip
    with pytest.raises(Refused, match="chat serves") as refused:
        measurements.ask(chat.pk, actor=ACTOR)
    assert refused.value.forceable
    assert measurements.ask(chat.pk, actor=ACTOR, force=True).state == "wanted"


def test_what_is_cancelled_or_falls_silent_ends(engine_row: Partition) -> None:
    chat = engine_row.deployment
    assert chat is not None
    run = measurements.ask(chat.pk, actor=ACTOR)
    measurements.begin(run.pk)
    assert measurements.cancel(run.pk, actor=ACTOR).state == "cancelled"
    assert not measurements.beat(run.pk, Progress()) and not measurements.finish(run.pk, profile(), [])
    other = measurements.ask(chat.pk, actor=ACTOR)
    measurements.begin(other.pk)
    ProfileRun.objects.filter(pk=other.pk).update(beat_at=timezone.now() - timedelta(minutes=5))
    measurements.give_up_silent()
    other.refresh_from_db()
    assert (other.state, other.message) == ("failed", "The process that measured it ended.")
    Partition.objects.filter(pk=engine_row.pk).update(phase="exited")
    with pytest.raises(Refused, match="no engine that is ready"):
        measurements.ask(chat.pk, actor=ACTOR)
    with pytest.raises(NotFound):
        measurements.cancel(0, actor=ACTOR)
    with pytest.raises(NotFound):
        profiles.delete_profile(0, actor=ACTOR)
