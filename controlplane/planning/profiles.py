"""Keeps profiles of engines: imports tables, forgets profiles, finds the one to go by. Laws are derived, never kept."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from django.db import transaction

from controlplane.audit.services import Actor, record
from controlplane.domain.fitting import speed
from controlplane.domain.problems import DomainError, Problem
from controlplane.domain.profiles import DecodePoint, PrefillPoint, Profile, ProfileError, Source, Speed
from controlplane.fleet.errors import NotFound
from controlplane.planning import aiconfigurator, profile_tables
from controlplane.planning.models import EngineProfile

MOST_ENGINES = 500  # of one table
FIX = (
    "Give a table of one of these forms, with a header: Splitwise's (model,hardware,prompt_size,batch_size,token_size,"
    "prompt_time,token_time,tensor_parallel), or AIConfigurator's pareto.csv, aggregated or disaggregated."
)


@dataclass(frozen=True, slots=True)
class Imported:
    """`replaced`: profiles of the same engines that an import had brought before. `left_out`: engines whose points make
    no law, and why."""

    made: list[EngineProfile]
    replaced: int
    left_out: list[str]


@transaction.atomic
def import_table(
    text: str,
    *,
    actor: Actor,
    name: str = "the table",
    models: Mapping[str, str] | None = None,
    gpus: Mapping[str, str] | None = None,
    reason: str = "",
) -> Imported:
    """Keep a profile of each engine in a CSV table. `models`, `gpus`: what the fleet calls those that the table names.
    Raises DomainError, and keeps nothing."""
    profiles, notes = _read(text, name)
    named = [_renamed(profile, models or {}, gpus or {}) for profile in profiles]
    left_out, made, replaced = [], list[EngineProfile](), 0
    for profile in named:
        try:
            speed_of(profile)
        except ProfileError as error:
            left_out.append(f"{profile.model} on {profile.tp} x {profile.gpu}: {error}"[:400])
            continue
        same = EngineProfile.objects.filter(
            model=profile.model, gpu=profile.gpu, tp=profile.tp, engine_version=profile.engine_version,
            source=Source.IMPORTED.value,
        ).exclude(pk__in=[row.pk for row in made])  # fmt: skip
        replaced += same.delete()[0]
        made.append(save(profile, origin=name, notes=notes, actor=actor))
    if not made:
        raise _refused(
            f"No engine in {name} has points that make a law: {'; '.join(left_out[:3]) or 'it has no rows'}."
        )
    for row in made:
        record(actor, "import-profile", row, after=_facts(row), reason=reason)
    return Imported(made, replaced, left_out)


@transaction.atomic
def delete_profile(profile_id: int, *, actor: Actor, reason: str = "") -> None:
    row = EngineProfile.objects.select_for_update().filter(pk=profile_id).first()
    if row is None:
        raise NotFound("profile", profile_id)
    record(actor, "delete-profile", row, before=_facts(row), reason=reason)
    row.delete()


def save(profile: Profile, *, origin: str, notes: Sequence[str], actor: Actor) -> EngineProfile:
    """For services that audit it themselves."""
    return EngineProfile.objects.create(
        model=profile.model, gpu=profile.gpu, tp=profile.tp, engine_version=profile.engine_version,
        flags=list(profile.flags), source=profile.source.value, origin=origin[:255], notes=list(notes),
        kv_tokens=profile.kv_tokens, max_num_seqs=profile.max_num_seqs, created_by=actor.name[:150],
        prefill=[[p.tokens, p.batch, p.context, p.step_ms] for p in profile.prefill],
        decode=[[p.concurrency, p.context, p.itl_ms] for p in profile.decode],
    )  # fmt: skip


def profile_of(row: EngineProfile) -> Profile:
    """As it was measured or imported."""
    return Profile(
        model=row.model, gpu=row.gpu, tp=row.tp, source=Source(row.source),
        prefill=tuple(PrefillPoint(*point) for point in row.prefill),
        decode=tuple(DecodePoint(*point) for point in row.decode),
        engine_version=row.engine_version, flags=tuple(row.flags), kv_tokens=row.kv_tokens,
        max_num_seqs=row.max_num_seqs,
    )  # fmt: skip


@lru_cache(maxsize=512)
def speed_of(profile: Profile) -> Speed:
    """Laws, residuals and knee. Raises ProfileError."""
    return speed(profile)


def _read(text: str, name: str) -> tuple[list[Profile], list[str]]:
    header = set(text.partition("\n")[0].strip().lstrip("\ufeff").split(","))
    lines = io.StringIO(text.lstrip("\ufeff"), newline="")
    try:
        if "hardware" in header:
            profiles, notes = profile_tables.parse(name, lines), list[str]()
        else:
            profiles, notes = aiconfigurator.parse(name, lines)
    except ProfileError as error:
        raise _refused(f"{error}.") from error
    if len(profiles) > MOST_ENGINES:
        raise _refused(f"{name} has {len(profiles)} engines, more than {MOST_ENGINES}.")
    return profiles, notes


def _renamed(profile: Profile, models: Mapping[str, str], gpus: Mapping[str, str]) -> Profile:
    return replace(
        profile, model=models.get(profile.model, profile.model), gpu=gpus.get(profile.gpu, profile.gpu)
    )  # fmt: skip


def _refused(message: str) -> DomainError:
    return DomainError(Problem("no-profile", f"{message} Nothing was imported.", FIX))


def _facts(row: EngineProfile) -> dict[str, object]:
    points: Iterable[tuple[str, int]] = (("prefill", len(row.prefill)), ("decode", len(row.decode)))
    return {"source": row.source, "origin": row.origin, "engine_version": row.engine_version, **dict(points)}
