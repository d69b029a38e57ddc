"""Has weights of pooled models lie on nodes of the pool before anybody asks, by what was learned of their habits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from math import prod

from django.conf import settings
from django.db import transaction

from controlplane.audit.services import Actor, record
from controlplane.domain import prefetching
from controlplane.domain.prefetching import Candidate, Place
from controlplane.fleet import brake, pool_habits, pool_use, weights
from controlplane.fleet.models import Deployment, Node, RegisteredModel, WantedWeights
from controlplane.fleet.publish import publish
from controlplane.fleet.services.slots import Round
from workers.weights import MOST_FETCHES

FORECAST, OPERATOR = WantedWeights.Cause.FORECAST, WantedWeights.Cause.OPERATOR
ACTOR = Actor.system("pool")
WITHIN_S = 6 * 3600.0  # so far ahead a model may be asked for to be worth its download
MOST = 64  # models that are looked at, the likeliest
SILENT = timedelta(minutes=10)  # for so long a node may be silent before others fetch what it was to have
TOLD = 0.1  # a chance that differs by less is not written anew


def prefetch(now: datetime) -> int:
    """On how many nodes something else is wanted now. Where nothing was learned lately, or many nodes are silent at
    once, all stays as it is."""
    if not (settings.POOL_FETCH and settings.POOL_PREDICT):
        return _apply({}, _wished())
    learned_at = pool_habits.learned_at()
    if learned_at is None or now - learned_at > pool_habits.FRESH or brake.state(now).on:
        return 0
    wished = _wished()
    candidates = _candidates(now, wished)
    nodes = {node for one in candidates for node in one.fits} | wished.keys()
    places = _places(nodes, candidates, wished, now)
    return _apply(prefetching.choose(candidates, places), wished)


def _wished() -> dict[int, dict[int, float]]:
    """By node and model, what is wanted by forecast, with the chance."""
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for node, model, chance in WantedWeights.objects.filter(cause=FORECAST).values_list("node", "model", "chance"):
        found[node][model] = chance or 0.0
    return found


def _candidates(now: datetime, wished: Mapping[int, Mapping[int, float]]) -> list[Candidate]:
    """Models of pooled deployments that come from a hub and whose size is known."""
    pooled = Deployment.objects.filter(
        mode=Deployment.Mode.POOLED, model__kind=RegisteredModel.Kind.HUGGING_FACE
    ).select_related("model")
    by_name = {row.name: row for row in pooled}
    told = pool_habits.chances(now, pool_use.read(now) or {}, by_name, WITHIN_S)
    by_model: dict[int, list[Deployment]] = defaultdict(list)
    for name in told:
        by_model[by_name[name].model_id].append(by_name[name])
    chances = {pk: 1.0 - prod(1.0 - told[row.name] for row in found) for pk, found in by_model.items()}
    pool, on = Round(now, chances={}), _wished_on(wished, now)
    found = [
        Candidate(pk, _bytes(by_model[pk][0].model), chance, _fits(pool, by_model[pk]) | on.get(pk, frozenset()))
        for pk, chance in prefetching.likely_enough(chances, on.keys(), MOST).items()
    ]
    return [one for one in found if one.bytes]


def _bytes(model: RegisteredModel) -> int:
    """By its facts, else by what a node tells that it comes to; 0: not known, and so not fetched."""
    if known := model.facts.get("parameter_bytes"):
        return int(known)
    return max((row.total_bytes or 0 for row in weights.of_model(model)), default=0)


def _wished_on(wished: Mapping[int, Mapping[int, float]], now: datetime) -> dict[int, frozenset[int]]:
    """By model, those of the nodes where it is wanted that fell silent: no slot there takes it now, but soon again."""
    since = now - timedelta(seconds=settings.SILENT_AFTER_S)
    silent = set(Node.objects.filter(pk__in=wished, last_seen__lte=since).values_list("pk", flat=True))
    models = {model for found in wished.values() for model in found}
    return {model: frozenset(node for node in silent if model in wished[node]) for model in models}


def _fits(pool: Round, deployments: list[Deployment]) -> frozenset[int]:
    return frozenset(
        row.node_id
        for deployment in deployments
        for role in deployment.pool_roles
        for row, _ in pool.holding(deployment, role)
    )


def _places(
    nodes: set[int], candidates: list[Candidate], wished: Mapping[int, Mapping[int, float]], now: datetime
) -> list[Place]:
    """Nodes that were heard lately, take engines, and whose agents fetch."""
    able = {"schedulable": True, "draining": False, "revoked": False, "last_seen__gt": now - SILENT}
    rows = Node.objects.filter(pk__in=nodes, fetch_room_bytes__isnull=False, fetch_why_not="", **able).defer("spec")
    asked: dict[int, dict[int, int]] = defaultdict(dict)
    for one in WantedWeights.objects.filter(node__in=rows, cause=OPERATOR).select_related("model"):
        asked[one.node_id][one.model_id] = _bytes(one.model)
    free = _not_fetched(candidates)
    return [
        Place(
            row.pk,
            (row.fetch_room_bytes or 0) - sum(asked[row.pk].values()),
            MOST_FETCHES - len(asked[row.pk]),
            wanted=frozenset(wished.get(row.pk, ())),
            asked=frozenset(asked[row.pk]),
            free=frozenset(free.get(row.pk, ())),
        )
        for row in rows
    ]


def _not_fetched(candidates: list[Candidate]) -> dict[int, set[int]]:
    """By node, the models that lie there whole and came another way."""
    found: dict[int, set[int]] = defaultdict(set)
    for model in RegisteredModel.objects.filter(pk__in=[one.model for one in candidates]):
        for held in weights.of_model(model):
            if held.state == weights.COMPLETE and held.checked_at is None:
                found[held.node_id].add(model.pk)
    return found


def _apply(chosen: Mapping[int, Mapping[int, float]], wished: Mapping[int, Mapping[int, float]]) -> int:
    changed = [pk for pk in sorted(chosen.keys() | wished.keys()) if _differs(chosen.get(pk, {}), wished.get(pk, {}))]
    return sum(_set(pk, chosen.get(pk, {})) for pk in changed)


def _differs(chosen: Mapping[int, float], wished: Mapping[int, float]) -> bool:
    return chosen.keys() != wished.keys() or any(abs(chosen[pk] - wished[pk]) > TOLD for pk in chosen)


@transaction.atomic
def _set(node_id: int, chosen: Mapping[int, float]) -> bool:
    """Whether other models are wanted there than before. People's wishes are theirs."""
    node = Node.objects.select_for_update().filter(pk=node_id).first()
    if node is None:
        return False
    rows = {row.model_id: row for row in node.wanted_weights.select_related("model")}
    mine = {pk: row for pk, row in rows.items() if row.cause == FORECAST}
    gone = [row for pk, row in mine.items() if pk not in chosen]
    new = RegisteredModel.objects.filter(pk__in=chosen.keys() - rows.keys())
    made = [
        WantedWeights(node=node, model=model, cause=FORECAST, asked_by=ACTOR.name, chance=chosen[model.pk])
        for model in new
    ]
    for pk in mine.keys() & chosen.keys():
        mine[pk].chance = chosen[pk]
    WantedWeights.objects.bulk_update([mine[pk] for pk in mine.keys() & chosen.keys()], ["chance"])
    WantedWeights.objects.filter(pk__in=[row.pk for row in gone]).delete()
    WantedWeights.objects.bulk_create(made)
    for verb, found in (("fetch-weights", made), ("unfetch-weights", gone)):
        if found:
            record(ACTOR, verb, node, after={"models": sorted(row.model.name for row in found)})
    publish(node)
    return bool(made or gone)
